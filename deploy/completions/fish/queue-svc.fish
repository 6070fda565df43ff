complete -c queue-svc -l metrics -d 'Address and port of the Prometheus metrics page `/metrics`; none if not given' -r
complete -c queue-svc -l nats-url -d 'NATS server with JetStream. It must answer at start; later it may be away for a while. A name and password, or a token, may stand in it: `nats://NAME:PASSWORD@HOST:PORT`; then give it by the environment, since everybody on the host can read flags' -r
complete -c queue-svc -l nats-user -d 'Name that NATS knows us by' -r
complete -c queue-svc -l nats-password-file -d 'File whose first line is the password of --nats-user' -r -F
complete -c queue-svc -l nats-creds -d 'File by whose key we log in to NATS: `.creds`, as `nsc` makes them, or the seed of an nkey alone' -r -F
complete -c queue-svc -l grpc-token-file -d 'Who may call gRPC: a file with lines of `NAME:TOKEN`; callers show `authorization: Bearer TOKEN`, and what they change is in the log with their name. The first line is what this service shows to the others; give all of them the same file. Health may be asked without. Default: anyone' -r -F
complete -c queue-svc -l grpc-cert -d 'Certificate chain of this service for gRPC by TLS, as PEM, for the host names that others reach it by. It is shown to them as a client, too, where their URL is `https:`. Default: no TLS' -r -F
complete -c queue-svc -l grpc-key -d 'Private key of --grpc-cert, as PEM' -r -F
complete -c queue-svc -l grpc-ca -d 'Authorities, as PEM, for gRPC by TLS: callers must show a certificate by one of them, and so must the services that this one calls by `https:`' -r -F
complete -c queue-svc -l grpc-health -d 'Address and port of a second gRPC port with health alone, without TLS and token, for probes that can do neither; none if not given' -r
complete -c queue-svc -l reflection -d 'Whether callers can ask what services, methods and messages there are, as grpcurl does' -r -f -a "on\t''
off\t''"
complete -c queue-svc -l otlp-endpoint -d 'Collector of OpenTelemetry that takes traces by OTLP over gRPC, e.g. `http://127.0.0.1:4317`. The trace of a call has its `call_id`, without the dashes, as its id. Default: no traces' -r
complete -c queue-svc -l log -d 'What to log: a level, or levels per module, e.g. `info,sip_edge=debug`' -r
complete -c queue-svc -l log-format -d 'How to log, on stderr' -r -f -a "auto\t'`human` on a terminal, else `json`'
human\t'One coloured line per event'
json\t'One JSON object per event'"
complete -c queue-svc -l drain -d 'How long what is active may go on after SIGTERM, e.g. `30s`, `2h`. A second signal ends it at once' -r
complete -c queue-svc -l database-url -d 'Database of queues and callers: `sqlite:` and a file, which is made if it is not there, for one queue-svc at a time; or `postgres://USER@HOST/DATABASE` or `mysql://USER@HOST/DATABASE` (MariaDB, MySQL), for replicas, of which one owns the queues and the others hand requests on to it; with `?sslmode=verify-full`, or `?ssl-mode=VERIFY_IDENTITY`, by TLS' -r
complete -c queue-svc -l sqlite-synchronous -d 'What a commit of SQLite waits for. `normal`: it survives the death of this process, but a power cut may take the last moments. `full`: it waits for the disk, and survives that, too' -r -f -a "normal\t''
full\t''"
complete -c queue-svc -l advertise-grpc -d 'Where other replicas reach the gRPC of this one, if not at --grpc, e.g. `http://10.0.0.7:50054`' -r
complete -c queue-svc -l retention -d 'How long changes are kept for those who watch and were away' -r
complete -c queue-svc -l prompts -d 'Folder of the words of announcements, below media-relay\'s `--media-dir`: you-are-number, wait-within, wait-within-a-minute, minutes, number/0 to number/20, number/30 to number/90, number/100 to number/900, number/thousand, each with an extension that media-relay knows' -r
complete -c queue-svc -l sip-edge -d 'gRPC of sip-edge, which rings the agents' -r
complete -c queue-svc -l max-calls -d 'How many callers may wait in all queues together, 1 to 1,000,000. Each queue has its own `max_calls` besides' -r
complete -c queue-svc -l grpc -d 'Address and port where gRPC (operators and the other services) listens; port 0 takes a free one' -r
complete -c queue-svc -s h -l help -d 'Print help (see more with \'--help\')'
complete -c queue-svc -s V -l version -d 'Print version'
