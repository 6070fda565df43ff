//! baresip, by each transport: it registers, calls into the queue, and is called over the connection
//! that it has opened.

use e2e::audio::tune;
use e2e::{Account, Authority, Baresip, QUEUE_USER, Stack, USERS};
use std::net::{SocketAddr, TcpListener};

const PLAN: &str = r#"{"actions": [{"conference": {"name": "test1"}}]}"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_phone_registers_calls_and_is_called_by_udp_tcp_and_tls() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let (cert, key) = Authority::in_folder(folder.path())?.certify("127.0.0.1")?;
    let tls = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let (listen, cert, key) = (format!("tls:{tls}"), path(&cert), path(&key));
    let flags = ["--digest", "md5", "--listen", &listen, "--tls-cert", &cert, "--tls-key", &key];
    let stack = Stack::start_with(&flags)?;
    stack.create_queue().await?;
    for (transport, edge) in [("udp", stack.sip()), ("tcp", stack.sip()), ("tls", tls)] {
        check(&stack, transport, edge).await?;
    }
    stack.stop()
}

async fn check(stack: &Stack, transport: &str, edge: SocketAddr) -> anyhow::Result<()> {
    let (user, password) = USERS[0];
    let voice = tune(63, 2_000);
    let (registrar, password) = (stack.sip(), Some(password));
    let account = Account { user, registrar, password, codec: "pcmu", voice: &voice };
    let mut phone = Baresip::start_by(&account, transport, edge)?;
    phone.dial(&stack.uri(QUEUE_USER))?;
    stack.wait_waiting(1).await?;
    phone.hang_up()?;
    stack.wait_clean().await?;

    let call = stack.originate(&format!("user/{user}"), PLAN).await?;
    phone.wait_answered()?;
    phone.hang_up()?;
    stack.wait_ended(&call.call_id).await?;
    phone.stop()?; // It unregisters.
    stack.wait_clean().await
}

fn path(path: &std::path::Path) -> String {
    path.display().to_string()
}
