//! A conference: each hears all the others, and not itself.

use e2e::Stack;
use e2e::audio::{Codec, tone, tone_amplitude};
use e2e::phone::Phone;
use std::time::Duration;

const TONES_HZ: [u32; 3] = [450, 1_150, 2_050];
const AMPLITUDE: f32 = 0.2;
/// Above this a tone is heard; lost packets make it a little quieter than it was spoken.
const HEARD_MIN: f32 = 0.1;
/// Below this it is not: what G.711 adds to two other tones is 30 dB under them.
const UNHEARD_MAX: f32 = 0.01;

/// Amplitudes of the three tones in the next second that `phone` hears.
fn tones(phone: &Phone, codec: Codec) -> anyhow::Result<[f32; 3]> {
    phone.ear().clear();
    phone.ear().listen(Duration::from_secs(1))?;
    let heard = phone.ear().audio(codec);
    Ok(TONES_HZ.map(|frequency_hz| tone_amplitude(&heard, frequency_hz)))
}

/// `phone` hears the tones of `others` and no other one.
fn assert_hears(phone: &Phone, codec: Codec, others: &[usize]) -> anyhow::Result<()> {
    let amplitudes = tones(phone, codec)?;
    for (nth, amplitude) in amplitudes.into_iter().enumerate() {
        match others.contains(&nth) {
            true => assert!(amplitude >= HEARD_MIN, "no tone {nth} of {others:?}: {amplitudes:?}"),
            false => {
                assert!(amplitude <= UNHEARD_MAX, "tone {nth}, not {others:?}: {amplitudes:?}")
            }
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn each_of_three_hears_the_two_others_and_not_itself() -> anyhow::Result<()> {
    let stack = Stack::start()?;
    let codecs = [Codec::Pcmu, Codec::Pcma, Codec::Pcmu];
    let phones = codecs
        .iter()
        .enumerate()
        .map(|(nth, codec)| Phone::start(&format!("p{nth}"), *codec))
        .collect::<Result<Vec<_>, _>>()?;
    let mut calls = Vec::new();
    for (phone, frequency_hz) in phones.iter().zip(TONES_HZ) {
        let call = phone.dial(stack.sip(), &stack.uri("test1"))?;
        call.speak(&tone(frequency_hz, AMPLITUDE));
        calls.push(call);
    }
    for call in stack.calls().await? {
        stack.wait_call(&call.call_id, |it| it.conference == "test1").await?;
    }
    // What was said before all were in is heard, and gone, within half a second.
    phones[2].ear().listen(Duration::from_millis(500))?;
    for (nth, others) in [[1, 2], [0, 2], [0, 1]].iter().enumerate() {
        assert_hears(&phones[nth], codecs[nth], others)?;
    }
    // Who leaves is not heard any more; the others go on.
    calls.pop().expect("there are three").bye()?;
    phones[0].ear().listen(Duration::from_millis(500))?;
    assert_hears(&phones[0], codecs[0], &[1])?;
    assert_hears(&phones[1], codecs[1], &[0])?;
    for call in calls {
        call.bye()?;
    }
    stack.wait_clean().await?;
    stack.stop()
}
