'use strict';
(() => {
  // A link to a folded cell opens it.
  const reveal = () => {
    const target = document.getElementById(location.hash.slice(1));
    if (target && target.matches('details')) {
      target.open = true;
      target.scrollIntoView();
    }
  };
  addEventListener('hashchange', reveal);
  reveal();

  // On paper nothing can be opened any more.
  addEventListener('beforeprint', () => {
    for (const details of document.querySelectorAll('details')) details.open = true;
  });

  for (const control of document.querySelectorAll('[data-points]')) {
    // Each point: threshold as shown, its place on the histogram, true positives, false positives.
    const points = control.dataset.points.split(';').map((point) => point.split(' '));
    const [left, top, right, bottom] = control.dataset.frame.split(' ').map(Number);
    const anomalous = Number(control.dataset.anomalous);
    const normal = Number(control.dataset.normal);
    const charts = control.closest('[data-cell]');
    const line = charts.querySelector('.histogram-at');
    const dot = charts.querySelector('.roc-at');
    const show = (name, text) => {
      control.querySelector(`[data-show="${name}"]`).textContent = text;
    };
    const input = control.querySelector('input');
    const move = () => {
      const [threshold, x, tp, fp] = points[Number(input.value)];
      show('threshold', threshold);
      show('tp', tp);
      show('fp', fp);
      show('f1', (200 * tp / (Number(tp) + Number(fp) + anomalous)).toFixed(2));
      input.setAttribute('aria-valuetext', `score ${threshold}`);
      line.setAttribute('x1', x);
      line.setAttribute('x2', x);
      dot.setAttribute('cx', left + (right - left) * fp / normal);
      dot.setAttribute('cy', bottom - (bottom - top) * tp / anomalous);
    };
    input.addEventListener('input', move);
    control.querySelector('label').hidden = false;
    move();
  }
})();
