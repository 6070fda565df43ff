//! The smallest service: what `boot` gives to each binary, with nothing in it. Its tests run it.

use clap::Parser;
use proto::sip_edge::v1::{CallEvent, CallEventType};
use proto::subjects;
use std::process::ExitCode;

/// A service with nothing in it.
#[derive(Parser)]
#[command(version)]
struct Args {
    #[command(flatten)]
    common: boot::Common,

    /// End a vital task at start: by an `error`, by a `panic`, or by its `end`.
    #[arg(long)]
    die_by: Option<String>,

    /// Have work that never ends by itself when drained.
    #[arg(long)]
    busy: bool,

    /// Publish so many events when drained.
    #[arg(long, default_value_t = 0)]
    last_words: usize,
}

fn main() -> ExitCode {
    let args = Args::parse();
    boot::run("bare-service", &args.common.clone(), |service| async move {
        let grpc = service.bind_grpc().await?;
        let nats = service.connect_nats().await?;
        let (publisher, publishing) = nats.publisher();
        service.spawn_vital("events", publishing);
        if let Some(how) = args.die_by {
            service.spawn_vital("a doomed task", async move {
                match how.as_str() {
                    "error" => anyhow::bail!("find the file"),
                    "panic" => panic!("an invariant is broken"),
                    _ => Ok(()),
                }
            });
        }
        let drained = async move {
            if args.busy {
                std::future::pending::<()>().await;
            }
            for _ in 0..args.last_words {
                let subject = subjects::call(CallEventType::Ended, "c");
                publisher.publish(subject, &boot::new_id(), &CallEvent::default());
            }
        };
        service.serve(grpc, &["bare.v1.Bare"], tonic::service::Routes::default(), drained).await
    })
}
