//! Whole lives of tasks, second by second.

use std::time::Duration;

use slurm_array::{Attempt, Beat, Ended, Ending, Entry, Limits, Poll, Sight, Tracker, Verdict};

const LIMITS: Limits = Limits { stale: Duration::from_secs(20), grace: Duration::from_secs(10) };

fn listed(state: &str, exit: u32, reason: &str) -> Sight {
    let entry = Entry::parse(&format!("12|3|15|{state}|{exit}|{reason}|n1|")).unwrap();
    Sight { poll: Poll::Listed(entry), ..Sight::default() }
}

fn absent() -> Sight {
    Sight { poll: Poll::Absent, ..Sight::default() }
}

fn beating(count: u64) -> Sight {
    let attempt = Attempt { array: 12, index: 3, restarts: 0 };
    Sight { beat: Some(Beat { attempt, count, at: String::new() }), ..listed("RUNNING", 0, "None") }
}

fn with_last_word(sight: Sight, ending: Ending) -> Sight {
    let attempt = Attempt { array: 12, index: 3, restarts: 0 };
    let ended = Ended { attempt, node: "n1".into(), ending, why: "its own words".into() };
    Sight { ended: Some(ended), ..sight }
}

/// The words of the verdicts on what was seen at these seconds.
fn life(sights: &[(u64, Sight)]) -> Vec<String> {
    let mut tracker = Tracker::new(LIMITS);
    sights.iter().map(|(second, sight)| tracker.observe(Duration::from_secs(*second), sight).word()).collect()
}

#[test]
fn a_task_waits_runs_and_is_done_even_if_slurm_says_otherwise() {
    let done = |sight: Sight| Sight { done: true, ..sight };
    let words = life(&[
        (0, listed("PENDING", 0, "Resources")),
        (1, beating(0)),
        (2, listed("COMPLETED", 0, "None")),
        (3, done(listed("FAILED", 256, "NonZeroExitCode"))),
        (4, done(Sight::default())),
    ]);
    assert_eq!(words, ["waiting", "running", "settling", "done", "done"]);
}

#[test]
fn every_end_that_slurm_tells_has_its_name() {
    for (state, exit) in [
        ("TIMEOUT", 15),
        ("CANCELLED", 0),
        ("NODE_FAIL", 0),
        ("OUT_OF_MEMORY", 0),
        ("PREEMPTED", 0),
        ("BOOT_FAIL", 0),
        ("DEADLINE", 0),
        ("FAILED", 1792),
        ("NEVER_HEARD_OF", 0),
    ] {
        let seen = [(0, beating(1)), (1, listed(state, exit, "why")), (100, absent())];
        let word = state.to_lowercase();
        assert_eq!(life(&seen), ["running", word.as_str(), word.as_str()], "{state}");
    }
    let mut tracker = Tracker::new(LIMITS);
    let verdict = tracker.observe(Duration::ZERO, &listed("FAILED", 1792, "NonZeroExitCode"));
    let Verdict::Ended { code: 7, signal: 0, .. } = &verdict else { panic!("{verdict:?}") };
    assert_eq!(verdict.to_string(), "FAILED on n1, exit code 7 (NonZeroExitCode)");
    assert_eq!(tracker.end().unwrap().state, "FAILED");
}

#[test]
fn what_a_task_says_explains_a_failure_but_not_what_slurm_did_to_it() {
    for (state, ending, word) in [
        ("FAILED", Ending::Failed, "failed"),
        ("FAILED", Ending::Refused, "refused"),
        ("TIMEOUT", Ending::Stopped, "timeout"),
        ("CANCELLED", Ending::Failed, "cancelled"),
    ] {
        assert_eq!(
            life(&[(0, with_last_word(listed(state, 256, "why"), ending))]),
            [word],
            "{state} {ending:?}"
        );
    }
    // Slurm forgot it, and its word is all there is.
    let seen = |ending| life(&[0, 5, 30].map(|second| (second, with_last_word(absent(), ending))));
    assert_eq!(seen(Ending::Failed), ["failed"; 3]);
    assert_eq!(seen(Ending::Stopped), ["settling", "settling", "failed"]);
}

#[test]
fn a_requeued_task_is_no_end() {
    let words = life(&[
        (0, beating(1)),
        (1, with_last_word(listed("REQUEUED", 0, "None"), Ending::Stopped)),
        (2, with_last_word(listed("PENDING", 0, "BeginTime"), Ending::Stopped)),
        (3, beating(0)),
    ]);
    assert_eq!(words, ["running", "waiting", "waiting", "running"]);
    // After a node failed and the task came back, the old end is forgotten.
    let words = life(&[
        (0, listed("NODE_FAIL", 0, "None")),
        (1, listed("PENDING", 0, "Resources")),
        (2, absent()),
        (30, absent()),
    ]);
    assert_eq!(words, ["node_fail", "waiting", "settling", "lost"]);
}

#[test]
fn a_question_that_fails_changes_nothing() {
    let unknown = Sight::default;
    let words = life(&[(0, unknown()), (1, beating(1)), (500, unknown()), (900, beating(2))]);
    assert_eq!(words, ["waiting", "running", "running", "running"]);
    // Two polls without it are needed, and unknown ones don't count.
    let words = life(&[(0, absent()), (100, unknown()), (200, absent())]);
    assert_eq!(words, ["settling", "settling", "lost"]);
}

#[test]
fn who_runs_without_a_sign_of_life_is_a_ghost_until_it_gives_one() {
    let words =
        life(&[(0, beating(1)), (19, beating(1)), (20, beating(1)), (21, beating(2)), (22, beating(2))]);
    assert_eq!(words, ["running", "running", "ghost", "running", "running"]);
    // It never gave any.
    let silent = || listed("RUNNING", 0, "None");
    assert_eq!(life(&[(0, silent()), (25, silent())]), ["running", "ghost"]);
    // Waiting is no silence.
    let waiting = || listed("PENDING", 0, "BeginTime");
    assert_eq!(life(&[(0, silent()), (15, waiting()), (30, silent())]), ["running", "waiting", "running"]);
}

#[test]
fn what_will_never_begin_is_stuck_after_a_second_look() {
    let never = || listed("PENDING", 0, "PartitionTimeLimit");
    let words = life(&[(0, never()), (1, never()), (2, listed("PENDING", 0, "Resources")), (3, never())]);
    assert_eq!(words, ["waiting", "stuck", "waiting", "waiting"]);
    for verdict in
        [Verdict::Stuck { reason: String::new() }, Verdict::Ghost { node: String::new(), seconds: 1 }]
    {
        assert!(verdict.is_settled() && verdict.is_held(), "{verdict:?}");
    }
}

#[test]
fn a_completed_task_without_a_result_is_said_to_be_one() {
    let over = || listed("COMPLETED", 0, "None");
    assert_eq!(life(&[(0, over()), (5, over()), (10, over())]), ["settling", "settling", "completed"]);
}

#[test]
fn an_end_that_was_kept_counts_when_slurm_has_forgotten_it() {
    let end = Entry::parse("12|3|15|OUT_OF_MEMORY|0|OutOfMemory|n2|").unwrap();
    let mut tracker = Tracker::with_end(LIMITS, Some(end));
    assert_eq!(tracker.observe(Duration::ZERO, &absent()).word(), "out_of_memory");
}
