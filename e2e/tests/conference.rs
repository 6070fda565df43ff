//! A conference: each hears all the others, and not itself.

use e2e::audio::{Codec, PHONE_RATE_HZ, Wav, tone, tone_amplitude};
use e2e::phone::Phone;
use e2e::{Account, Baresip, Stack};
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

/// Codecs of the phones that are not ours: of three clocks, so the mix is at the widest.
const CODECS: [&str; 3] = ["pcmu", "g722", "opus"];
/// How long they talk; the last second but one of it is looked at.
const TALK: Duration = Duration::from_secs(3);
const SECOND: usize = PHONE_RATE_HZ as usize;

#[tokio::test(flavor = "multi_thread")]
async fn each_of_three_phones_of_others_hears_the_two_others() -> anyhow::Result<()> {
    let stack = Stack::start()?;
    let (edge, uri) = (stack.sip(), stack.uri("test1"));
    let mut phones = Vec::new();
    for (codec, frequency_hz) in CODECS.into_iter().zip(TONES_HZ) {
        let voice = Wav::mono(PHONE_RATE_HZ, tone(frequency_hz, AMPLITUDE));
        let account =
            Account { user: codec, registrar: edge, password: None, codec, voice: &voice };
        let mut phone = Baresip::start(&account)?;
        phone.dial(&uri)?;
        phones.push(phone);
    }
    assert!(phones[0].wait_closed(TALK).is_err(), "hung up on");
    for phone in &mut phones {
        phone.hang_up()?;
    }
    for (nth, mut phone) in phones.into_iter().enumerate() {
        phone.stop()?;
        let heard = phone.heard(0)?;
        let end = heard.len().saturating_sub(SECOND);
        let settled = &heard[end.saturating_sub(SECOND)..end];
        assert_eq!(settled.len(), SECOND, "{} has heard {} samples", CODECS[nth], heard.len());
        let amplitudes = TONES_HZ.map(|frequency_hz| tone_amplitude(settled, frequency_hz));
        println!("{}: {amplitudes:?}", CODECS[nth]);
        for (other, amplitude) in amplitudes.into_iter().enumerate() {
            match other == nth {
                true => assert!(amplitude <= UNHEARD_MAX, "itself: {amplitudes:?}"),
                false => assert!(amplitude >= HEARD_MIN, "not all others: {amplitudes:?}"),
            }
        }
    }
    stack.wait_clean().await?;
    stack.stop()
}
