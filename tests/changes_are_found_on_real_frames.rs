//! Frames that telescopes took are subtracted without special treatment, and end in a result or in a sentence.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support {
    pub mod beside;
    pub mod candidates;
    pub mod night;
}

use support::beside::real_data;
use support::candidates::{Found, subtract};

/// DECam, sky-subtracted, resampled on one grid, five usable stars a frame; a nucleus brightened at (130, 129).
#[test]
fn the_brightening_of_the_decam_field_is_found_in_five_of_five_pairs() {
    let Some(data) = real_data() else { return };
    let folder = data.join("thomasvrussell+sfft");
    for pair in ["a", "b", "c", "d", "e"] {
        let science = folder.join(format!("DEC-OBS04{pair}.mini.fits.gz"));
        let reference = folder.join(format!("DEC-OBS18{pair}.mini.fits.gz"));
        let alerts = subtract(&science, &reference).unwrap().alerts();
        let near = |c: &&Found| (c.x - 130.0).hypot(c.y - 129.0) < 1.5;
        let nucleus = alerts.iter().find(near).unwrap_or_else(|| panic!("pair {pair}: {alerts:?}"));
        assert!(nucleus.positive && nucleus.snr > 8.0, "pair {pair}: {nucleus:?}");
        assert!(alerts.len() <= 4, "pair {pair}: {alerts:?}");
    }
}

#[test]
fn two_exposures_of_one_minute_show_no_change() {
    let Some(data) = real_data() else { return };
    let folder = data.join("quatrope+ProperImage");
    let [science, reference] = ["004", "005"].map(|n| folder.join(format!("aligned_eso085-030-{n}.fit.gz")));
    let alerts = subtract(&science, &reference).unwrap().alerts();
    assert!(alerts.len() <= 1, "{alerts:?}");
}

#[test]
fn stars_narrower_than_the_pixels_allow_make_no_flood() {
    let Some(data) = real_data() else { return };
    let folder = data.join("panoptes+panoptes-utils");
    match subtract(&folder.join("solved.fits.fz"), &folder.join("unsolved.fits.gz")) {
        Ok(found) => assert!(found.alerts().len() <= 9, "{:?}", found.alerts()),
        Err(sentence) => assert!(sentence.contains("was not subtracted"), "{sentence}"),
    }
}

#[test]
fn another_field_is_refused_with_a_sentence() {
    let Some(data) = real_data() else { return };
    let science = data.join("quatrope+ProperImage/aligned_eso085-030-004.fit.gz");
    let reference = data.join("kbarbary+sep/image.fits.gz");
    let sentence = subtract(&science, &reference).map(|_| ()).unwrap_err();
    assert!(sentence.contains("do not show the same field") || sentence.contains("stars in common"), "{sentence}");
}
