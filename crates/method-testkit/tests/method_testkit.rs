//! The testkit tested: a good method passes everything, and each broken one is caught by exactly the check it breaks.
#![allow(clippy::unwrap_used)]

mod prototype;

use method_testkit::{Check, Defect, Resume, Scene, SeedUse, Suite, Texture};
use prototype::{Fault, Prototype};
use serde_json::json;

fn suite(fault: Fault) -> Suite<'static> {
    let build = move |config: &_| Ok(Box::new(Prototype::new(config, fault)?) as Box<_>);
    let mut suite = Suite::new("prototype", build, move |directory| prototype::load(directory, fault));
    suite.config = json!({"side": 8, "epochs": 3});
    suite.out_of_range = vec![("epochs", json!(0)), ("side", json!(-1)), ("rate", json!(1.5))];
    suite.scene = Scene { texture: Texture::Part, defect: Defect::Spot, size: 16, training_images: 24 };
    suite.reason = "a prototype of pixels at fixed places needs parts at fixed places";
    suite.seed_use = SeedUse::Draws;
    suite.resume = Resume::FromCheckpoint;
    suite.gradients = Some(Box::new(move || Ok(prototype::gradients(fault))));
    suite
}

/// The checks that `fault` does not pass.
fn caught(fault: Fault) -> Vec<Check> {
    suite(fault)
        .run_all()
        .err()
        .map_or_else(Vec::new, |failures| failures.0.iter().map(|f| f.check).collect())
}

#[test]
fn a_good_method_passes() {
    suite(Fault::None).run_all().unwrap();
}

macro_rules! caught_by {
    ($($name:ident: $fault:ident => $check:ident,)*) => {$(
        #[test]
        fn $name() {
            assert_eq!(caught(Fault::$fault), [Check::$check]);
        }
    )*};
}

caught_by! {
    a_flipped_sign_is_caught: FlippedSign => RanksPlantedDefects,
    an_ignored_seed_is_caught: IgnoredSeed => SeedDecides,
    a_batch_dependent_score_is_caught: BatchDependentScore => BatchIndependence,
    a_lossy_save_is_caught: LossySave => SaveAndLoad,
    a_swallowed_nan_is_caught: SwallowedNan => NotFiniteRefused,
    a_resume_that_starts_again_is_caught: RestartedResume => CancelAndResume,
    a_resume_that_forgets_the_epoch_is_caught: ForgetfulResume => CancelAndResume,
    a_cancellation_without_effect_is_caught: DeafToCancellation => CancelAndResume,
    an_unnamed_field_is_caught: TolerantConfig => ConfigNamesTheField,
    a_missing_gradient_is_caught: MissingGradient => GradientsReachParameters,
    a_score_from_ids_is_caught: ReadsIds => PredictionIsWellFormed,
    an_offer_that_moves_is_caught: MovingOffer => OffersStandStill,
    a_missing_method_check_is_caught: LoadsAnything => SaveAndLoad,
}

#[test]
fn a_failure_names_the_method_the_check_and_the_numbers() {
    let failures = suite(Fault::FlippedSign).run_all().unwrap_err();
    let words = failures.to_string();
    assert!(words.starts_with("1 of 10 checks failed"), "{words}");
    assert!(words.contains("prototype: ranks-planted-defects: AUROC 0."), "{words}");
    assert!(words.contains("sign is flipped") && words.contains("Spot"), "{words}");
    assert_eq!(format!("{failures:?}"), words);
}

#[test]
fn a_method_that_draws_nothing_is_not_asked_for_other_weights() {
    let mut deterministic = suite(Fault::IgnoredSeed);
    deterministic.seed_use = SeedUse::NoDraws;
    deterministic.run(Check::SeedDecides).unwrap();
    let mut drawing = suite(Fault::None);
    drawing.seed_use = SeedUse::NoDraws;
    assert!(drawing.run(Check::SeedDecides).unwrap_err().problem.contains("does not draw"));
}

#[test]
fn a_suite_must_name_a_value_out_of_range() {
    let mut suite = suite(Fault::None);
    suite.out_of_range.clear();
    assert!(suite.run(Check::ConfigNamesTheField).unwrap_err().problem.contains("out of range"));
}
