#!/bin/sh
# Opens a report page in headless Chromium and fails if its script or its content-security policy complains, if the
# thresholds do not move, or if the page is wider than a phone or a desktop window.
# Usage: check-page.sh FILE      (CHROMIUM names the browser if it is not called chromium, google-chrome or chrome)
set -eu

if [ $# -ne 1 ] || [ ! -f "$1" ]; then
    echo "usage: $0 FILE" >&2
    exit 2
fi
page=$(cd "$(dirname "$1")" && pwd)/$(basename "$1")
browser=${CHROMIUM:-}
for name in chromium chromium-browser google-chrome chrome; do
    [ -n "$browser" ] || browser=$(command -v "$name" || true)
done
if [ -z "$browser" ]; then
    echo "$0: no Chromium found; set CHROMIUM to its path" >&2
    exit 2
fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT INT TERM

# open URL WIDTH: prints the page as it is after its scripts ran; the browser's own log goes to $work/log.
open_page() {
    timeout 120 "$browser" --headless --no-sandbox --disable-gpu --disable-dev-shm-usage --no-first-run \
        --disable-background-networking --disable-component-update --disable-sync --disable-extensions \
        --user-data-dir="$work/profile" --host-resolver-rules='MAP * ~NOTFOUND' --window-size="$2,900" \
        --virtual-time-budget=5000 --enable-logging=stderr --v=0 --dump-dom "$1" 2>"$work/log"
}

fail() {
    echo "$0: $page: $1" >&2
    grep 'CONSOLE' "$work/log" >&2 || true
    exit 1
}

# As it is: every complaint of scripts, of the policy and of failed loads is a console message.
open_page "file://$page" 1400 >"$work/plain.html" || fail "the browser failed"
grep -q 'CONSOLE' "$work/log" && fail "messages on the console"
grep -Eq '(src|href)="(https?:)?//' "$work/plain.html" && fail "it refers to the network"

# The same page, driven: a frame of each width with everything unfolded and every threshold moved. The policy is
# taken out, for it would rightly refuse the driver.
sed 's/<meta http-equiv="Content-Security-Policy"[^>]*>//' "$page" >"$work/page.html"
cat >>"$work/page.html" <<'DRIVER'
<script>
addEventListener('message', () => {
  const problems = [];
  for (const details of document.querySelectorAll('details')) details.open = true;
  for (const control of document.querySelectorAll('[data-points]')) {
    const input = control.querySelector('input');
    const line = control.closest('[data-cell]').querySelector('.histogram-at');
    const shown = () => ['tp', 'fp'].map((name) => Number(control.querySelector(`[data-show="${name}"]`).textContent));
    const at = (value) => {
      input.value = value;
      input.dispatchEvent(new Event('input'));
      return shown();
    };
    const lowest = at(0);
    const left = Number(line.getAttribute('x1'));
    const highest = at(input.max);
    const whole = lowest[0] === Number(control.dataset.anomalous) && lowest[1] === Number(control.dataset.normal);
    if (!whole) problems.push(`the lowest threshold alarms for ${lowest}`);
    if (Number(input.max) > 0) {
      if (highest[0] + highest[1] >= lowest[0] + lowest[1]) problems.push('the highest threshold does not alarm less');
      if (Number(line.getAttribute('x1')) < left) problems.push('the line moves the wrong way');
    }
  }
  const wide = document.documentElement.scrollWidth;
  if (wide > innerWidth) problems.push(`the page is ${wide} px wide in a window of ${innerWidth} px`);
  for (const image of document.images) if (image.naturalWidth === 0) problems.push(`broken image: ${image.alt}`);
  parent.postMessage(problems.length ? problems.join('; ') : 'fine', '*');
});
</script>
DRIVER
cat >"$work/frames.html" <<'FRAMES'
<!DOCTYPE html>
<pre id="said"></pre>
<script>
addEventListener('message', (event) => { document.getElementById('said').textContent += `said: ${event.data}\n`; });
for (const width of [390, 1400]) {
  const frame = document.createElement('iframe');
  frame.width = width;
  frame.height = 900;
  frame.addEventListener('load', () => frame.contentWindow.postMessage('go', '*'));
  frame.src = 'page.html';
  document.body.append(frame);
}
</script>
FRAMES
open_page "file://$work/frames.html" 1600 >"$work/driven.html" || fail "the browser failed"
grep -q 'CONSOLE' "$work/log" && fail "messages on the console when driven"
[ "$(grep -c 'said: fine' "$work/driven.html")" -eq 2 ] || fail "$(grep 'said:' "$work/driven.html" || echo 'the driver said nothing')"
echo "$page: no messages, thresholds move, fits 390 and 1400 px"
