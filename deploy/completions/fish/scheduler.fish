complete -c scheduler -l database-url -d 'Where tasks are kept: `sqlite:FILE`, made if there is none, for one scheduler at a time; or `postgres://USER@HOST/DATABASE`, for as many replicas as you like; with `?sslmode=verify-full`, and `&sslrootcert=FILE` if need be, by TLS' -r
complete -c scheduler -l sip-edge -d 'gRPC of a sip-edge, which brings about what tasks ask for: `URL`, or `NAME=URL` with its --edge-name. Repeatable; tasks that name no edge go to the first. It may start later' -r
complete -c scheduler -l edge-rate -d 'How many effects a second one sip-edge is asked for at most, those with the earliest time first; the rest is late. What is published is not bounded by this' -r
complete -c scheduler -l horizon -d 'How far ahead tasks are kept in memory, about 100 bytes each; later ones are only on disk, e.g. `10m`, `1h`' -r
complete -c scheduler -l max-tasks -d 'How many tasks that have not ended there may be; more are refused with RESOURCE_EXHAUSTED. As many ended ones are kept at most' -r
complete -c scheduler -l max-tasks-per-call -d 'How many tasks that have not ended one call may have; more are refused with RESOURCE_EXHAUSTED' -r
complete -c scheduler -l tenant-quota -d 'How many tasks that have not ended one tenant may have: `COUNT` for each tenant that is not named, `NAME=COUNT` for one that is. Repeatable; more are refused with RESOURCE_EXHAUSTED. With several replicas the tasks of the others are known a second late. Default: --max-tasks' -r
complete -c scheduler -l advertise-grpc -d 'Where other replicas reach the gRPC of this one, if not at --grpc, e.g. `http://10.0.0.7:50053`' -r
complete -c scheduler -l retention -d 'How long ended tasks can be asked about, and idempotency keys are remembered, e.g. `30m`, `1d`' -r
complete -c scheduler -l metrics -d 'Address and port of the Prometheus metrics page `/metrics`; none if not given' -r
complete -c scheduler -l nats-url -d 'NATS server with JetStream. It must answer at start; later it may be away for a while. A name and password, or a token, may stand in it: `nats://NAME:PASSWORD@HOST:PORT`; then give it by the environment, since everybody on the host can read flags' -r
complete -c scheduler -l nats-user -d 'Name that NATS knows us by' -r
complete -c scheduler -l nats-password-file -d 'File whose first line is the password of --nats-user' -r -F
complete -c scheduler -l nats-creds -d 'File by whose key we log in to NATS: `.creds`, as `nsc` makes them, or the seed of an nkey alone' -r -F
complete -c scheduler -l grpc-token-file -d 'Who may call gRPC: a file with lines of `NAME:TOKEN`; callers show `authorization: Bearer TOKEN`, and what they change is in the log with their name. The first line is what this service shows to the others; give all of them the same file. Health may be asked without. Default: anyone' -r -F
complete -c scheduler -l grpc-cert -d 'Certificate chain of this service for gRPC by TLS, as PEM, for the host names that others reach it by. It is shown to them as a client, too, where their URL is `https:`. Default: no TLS' -r -F
complete -c scheduler -l grpc-key -d 'Private key of --grpc-cert, as PEM' -r -F
complete -c scheduler -l grpc-ca -d 'Authorities, as PEM, for gRPC by TLS: callers must show a certificate by one of them, and so must the services that this one calls by `https:`' -r -F
complete -c scheduler -l grpc-health -d 'Address and port of a second gRPC port with health alone, without TLS and token, for probes that can do neither; none if not given' -r
complete -c scheduler -l reflection -d 'Whether callers can ask what services, methods and messages there are, as grpcurl does' -r -f -a "on\t''
off\t''"
complete -c scheduler -l otlp-endpoint -d 'Collector of OpenTelemetry that takes traces by OTLP over gRPC, e.g. `http://127.0.0.1:4317`. The trace of a call has its `call_id`, without the dashes, as its id. Default: no traces' -r
complete -c scheduler -l log -d 'What to log: a level, or levels per module, e.g. `info,sip_edge=debug`' -r
complete -c scheduler -l log-format -d 'How to log, on stderr' -r -f -a "auto\t'`human` on a terminal, else `json`'
human\t'One coloured line per event'
json\t'One JSON object per event'"
complete -c scheduler -l drain -d 'How long what is active may go on after SIGTERM, e.g. `30s`, `2h`. A second signal ends it at once' -r
complete -c scheduler -l grpc -d 'Address and port where gRPC (operators and the other services) listens; port 0 takes a free one' -r
complete -c scheduler -s h -l help -d 'Print help (see more with \'--help\')'
complete -c scheduler -s V -l version -d 'Print version'
