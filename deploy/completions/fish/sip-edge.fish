complete -c sip-edge -l metrics -d 'Address and port of the Prometheus metrics page `/metrics`; none if not given' -r
complete -c sip-edge -l nats-url -d 'NATS server with JetStream. It must answer at start; later it may be away for a while. A name and password, or a token, may stand in it: `nats://NAME:PASSWORD@HOST:PORT`; then give it by the environment, since everybody on the host can read flags' -r
complete -c sip-edge -l nats-user -d 'Name that NATS knows us by' -r
complete -c sip-edge -l nats-password-file -d 'File whose first line is the password of --nats-user' -r -F
complete -c sip-edge -l nats-creds -d 'File by whose key we log in to NATS: `.creds`, as `nsc` makes them, or the seed of an nkey alone' -r -F
complete -c sip-edge -l grpc-token-file -d 'Who may call gRPC: a file with lines of `NAME:TOKEN`; callers show `authorization: Bearer TOKEN`, and what they change is in the log with their name. The first line is what this service shows to the others; give all of them the same file. Health may be asked without. Default: anyone' -r -F
complete -c sip-edge -l grpc-cert -d 'Certificate chain of this service for gRPC by TLS, as PEM, for the host names that others reach it by. It is shown to them as a client, too, where their URL is `https:`. Default: no TLS' -r -F
complete -c sip-edge -l grpc-key -d 'Private key of --grpc-cert, as PEM' -r -F
complete -c sip-edge -l grpc-ca -d 'Authorities, as PEM, for gRPC by TLS: callers must show a certificate by one of them, and so must the services that this one calls by `https:`' -r -F
complete -c sip-edge -l grpc-health -d 'Address and port of a second gRPC port with health alone, without TLS and token, for probes that can do neither; none if not given' -r
complete -c sip-edge -l reflection -d 'Whether callers can ask what services, methods and messages there are, as grpcurl does' -r -f -a "on\t''
off\t''"
complete -c sip-edge -l otlp-endpoint -d 'Collector of OpenTelemetry that takes traces by OTLP over gRPC, e.g. `http://127.0.0.1:4317`. The trace of a call has its `call_id`, without the dashes, as its id. Default: no traces' -r
complete -c sip-edge -l log -d 'What to log: a level, or levels per module, e.g. `info,sip_edge=debug`' -r
complete -c sip-edge -l log-format -d 'How to log, on stderr' -r -f -a "auto\t'`human` on a terminal, else `json`'
human\t'One coloured line per event'
json\t'One JSON object per event'"
complete -c sip-edge -l drain -d 'How long what is active may go on after SIGTERM, e.g. `30s`, `2h`. A second signal ends it at once' -r
complete -c sip-edge -l sip -d 'Address and port where SIP listens, by UDP and by TCP; port 0 takes a free one. Default: 127.0.0.1:5060, if there is no --listen' -r
complete -c sip-edge -l advertise -d 'Host and port for Contact and Via of --sip, where peers reach us. Default: the --sip address; without a port, the port of --sip' -r
complete -c sip-edge -l listen -d 'One more place where SIP listens: `udp:`, `tcp:` or `tls:`, address and port (IPv6 in brackets), and behind `;advertise=` where its peers reach it, e.g. `tls:0.0.0.0:5061;advertise=sip.example.com`. May be given many times' -r
complete -c sip-edge -l tls-cert -d 'Certificate chain for TLS, as PEM, ours first. Read again at SIGHUP' -r -F
complete -c sip-edge -l tls-key -d 'Private key of --tls-cert, as PEM' -r -F
complete -c sip-edge -l tls-ca -d 'Authorities, as PEM, that sign the certificates of those whom we call by TLS. Default: those of this system' -r -F
complete -c sip-edge -l cdr-database-url -d 'Database in which the table `call_records` gets a row for each call that has ended: `sqlite:FILE`, `postgres://USER@HOST/DATABASE` or `mysql://USER@HOST/DATABASE` (MariaDB). While it is away, records wait on NATS for as long as that keeps events. Give all sip-edges the same. Default: no table' -r
complete -c sip-edge -l edge-name -d 'Name of this sip-edge: in Call.edge, and the owner of its sessions at media-relay. It must be the same after a restart, and different for each sip-edge' -r
complete -c sip-edge -l advertise-grpc -d 'Where other sip-edges reach the gRPC of this one, to ask about its calls, if not at --grpc, e.g. `http://10.0.0.7:50051`' -r
complete -c sip-edge -l media-relay -d 'gRPC of media-relay, as all sip-edges reach it: one that takes over our calls goes on with it' -r
complete -c sip-edge -l scheduler -d 'gRPC of scheduler' -r
complete -c sip-edge -l queue-svc -d 'gRPC of queue-svc' -r
complete -c sip-edge -l dial-plan -d 'Routes and call plans of inbound calls: YAML or JSON, the JSON mapping of sip_edge.v1.DialPlan. Default: one route, URIs of queues to their queues' -r -F
complete -c sip-edge -l dns -d 'Name server for SIP host names (NAPTR, SRV, addresses). May be given many times. Default: those of this system' -r
complete -c sip-edge -l user -d 'A user who may register, with the password for digest. May be given many times' -r
complete -c sip-edge -l users -d 'More users: a file with a NAME:PASSWORD on each line; lines that begin with # are comments' -r -F
complete -c sip-edge -l realm -d 'Realm of digest authentication' -r
complete -c sip-edge -l digest -d 'What registering phones may prove their password with: `md5`, `sha-256`, or both, the strongest first (`sha-256,md5`, RFC 8760). All phones know MD5; many (baresip 1.0, for one) give up when they are asked for anything else beside it, in whatever order' -r
complete -c sip-edge -l ended-retention -d 'How long a call that has ended can still be asked for, e.g. `10m`, at most `7d`; at most 20,000 are kept' -r
complete -c sip-edge -l source-rate -d 'Requests outside of dialogs that one source (an address, or a /64 of IPv6) may send in a second, and twice as many at once; what is more is discarded' -r
complete -c sip-edge -l source-calls -d 'Live calls at a time from one source; more are refused with 503' -r
complete -c sip-edge -l ban -d 'How long a source is not heard that scans, guesses passwords, or calls what does not exist; `0s` bans nobody' -r
complete -c sip-edge -l trust -d 'A source without limits and bans: an address or a CIDR block, such as a proxy\'s; instead of the default, this host. May be given many times' -r
complete -c sip-edge -l agent-heard-within -d 'How long an agent of a queue who has answered may take to be heard: until the first packet comes from the phone, the caller goes on hearing music. If none comes, the agent counts as not reachable, and the caller keeps the place. At most 2500ms; 0s connects at once, unheard' -r
complete -c sip-edge -l max-calls -d 'Live calls at a time; more are refused with 503, or RESOURCE_EXHAUSTED' -r
complete -c sip-edge -l grpc -d 'Address and port where gRPC (operators and the other services) listens; port 0 takes a free one' -r
complete -c sip-edge -s h -l help -d 'Print help (see more with \'--help\')'
complete -c sip-edge -s V -l version -d 'Print version'
