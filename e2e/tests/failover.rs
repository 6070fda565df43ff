//! A host with several places (RFC 3263): the call reaches the first that works.

use e2e::audio::Codec;
use e2e::phone::Phone;
use e2e::{Dnsmasq, Stack};
use std::net::UdpSocket;

const PLAN: &str = r#"{"actions": [{"conference": {"name": "test1"}}]}"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_call_passes_by_places_that_are_closed_or_overloaded() -> anyhow::Result<()> {
    let (overloaded, works) = (phone()?, phone()?);
    let closed = UdpSocket::bind("127.0.0.1:0")?.local_addr()?.port(); // Nobody has it any more.
    let place = |priority: u16, port: u16| {
        format!("--srv-host=_sip._udp.carrier.example,a.carrier.example,{port},{priority},0")
    };
    let records = [
        "--naptr-record=carrier.example,10,10,s,SIP+D2U,,_sip._udp.carrier.example".to_owned(),
        place(10, closed),
        place(20, port(&overloaded)?),
        place(30, port(&works)?),
        "--host-record=a.carrier.example,127.0.0.1".to_owned(),
        "--local=/example/".to_owned(),
    ];
    let dns = Dnsmasq::start(&records)?;
    let stack = Stack::start_with(&["--dns", &dns.addr().to_string()])?;
    let originating = stack.start_originate("sip:bob@carrier.example", PLAN);
    overloaded.invited()?.refuse("503 Service Unavailable");
    let call = works.invited()?.answer()?;
    originating.await??;
    call.bye()?;

    let originating = stack.start_originate("sip:bob@carrier.example", PLAN);
    overloaded.invited()?.refuse("486 Busy Here");
    let error = format!("{:#}", originating.await?.unwrap_err());
    assert!(error.contains("USER_BUSY"), "who is there decides: {error}");

    let originating = stack.start_originate("sip:bob@nowhere.example", PLAN);
    let error = format!("{:#}", originating.await?.unwrap_err());
    assert!(error.contains("NO_ROUTE_DESTINATION"), "{error}");
    stack.wait_clean().await?;
    stack.stop()
}

fn phone() -> anyhow::Result<Phone> {
    Phone::start("bob", Codec::Pcmu)
}

fn port(phone: &Phone) -> anyhow::Result<u16> {
    let uri = phone.uri();
    Ok(uri.rsplit(':').next().unwrap_or_default().parse()?)
}
