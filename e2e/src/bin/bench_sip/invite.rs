//! An INVITE as carriers send it, of 1.2 KB.

const SDP: &str = "v=0\r\n\
    o=- 1732264201 1732264201 IN IP4 203.0.113.24\r\n\
    s=session\r\n\
    c=IN IP4 203.0.113.24\r\n\
    t=0 0\r\n\
    m=audio 31422 RTP/AVP 8 0 9 18 101\r\n\
    a=rtpmap:8 PCMA/8000\r\n\
    a=rtpmap:0 PCMU/8000\r\n\
    a=rtpmap:9 G722/8000\r\n\
    a=rtpmap:18 G729/8000\r\n\
    a=fmtp:18 annexb=no\r\n\
    a=rtpmap:101 telephone-event/8000\r\n\
    a=fmtp:101 0-15\r\n\
    a=ptime:20\r\n\
    a=sendrecv\r\n";

/// The one numbered `nth`: a call of its own.
pub(crate) fn invite(nth: usize) -> String {
    format!(
        "INVITE sip:+4930123456@198.51.100.1:5060;transport=udp SIP/2.0\r\n\
         Via: SIP/2.0/UDP 203.0.113.10:5060;branch=z9hG4bK-524287-1-{nth:012};rport\r\n\
         Via: SIP/2.0/UDP 10.20.30.40:5060;received=203.0.113.9;branch=z9hG4bKa7c6b1-{nth:012}\r\n\
         Record-Route: <sip:203.0.113.10;lr;ftag=1928301774>\r\n\
         Max-Forwards: 68\r\n\
         From: \"Anna Example\" <sip:+4940987654@carrier.example.com;user=phone>;tag=a{nth:012}\r\n\
         To: <sip:+4930123456@198.51.100.1;user=phone>\r\n\
         Call-ID: 7d1f9a3c-{nth:012}@10.20.30.40\r\n\
         CSeq: 102 INVITE\r\n\
         Contact: <sip:+4940987654@203.0.113.24:5060;transport=udp>\r\n\
         Allow: INVITE, ACK, CANCEL, OPTIONS, BYE, REFER, NOTIFY, INFO, UPDATE, PRACK\r\n\
         Supported: replaces, timer\r\n\
         Session-Expires: 1800;refresher=uac\r\n\
         Min-SE: 90\r\n\
         P-Asserted-Identity: <sip:+4940987654@carrier.example.com>\r\n\
         User-Agent: Carrier SBC 9.3\r\n\
         Content-Type: application/sdp\r\n\
         Content-Length: {}\r\n\r\n{SDP}",
        SDP.len(),
    )
}
