complete -c media-relay -l rtp-address -d 'Address that RTP and RTCP are received on and sent from; also in the SDP, unless --advertise says otherwise' -r
complete -c media-relay -l advertise -d 'Address that the SDP tells remotes to send to, e.g. the public one of a NAT' -r
complete -c media-relay -l rtp-ports -d 'Ports for RTP (even) and RTCP (the odd one above), both included; two for each side of a session. A pair that another process has is skipped' -r
complete -c media-relay -l media-dir -d 'Folder of the audio files; nothing outside it is played' -r -F
complete -c media-relay -l audio-memory -d 'Memory for decoded and encoded audio, e.g. 512MiB. Files beyond it are forgotten, the longest unused first, and decoded again when they are needed; one that does not fit beside what is playing is refused' -r
complete -c media-relay -l codecs -d 'Codecs that are taken and offered; our offers have them in this order, answers keep the offerer\'s. L16 is 16 and 8 kHz' -r -f -a "pcmu\t''
pcma\t''
g722\t''
opus\t''
l16\t''
gsm\t''"
complete -c media-relay -l inactivity -d 'After how long without RTP and RTCP a side is reported INACTIVE, while somebody needs to hear it; phones that hold, and listeners to music, may be silent for ever. At most 24h; 0s: never' -r
complete -c media-relay -l max-sessions -d 'Most media sessions at a time; further ones get RESOURCE_EXHAUSTED. Each side of one takes a port pair of --rtp-ports: their 5,000 pairs are 5,000 callers on hold, or 2,500 talks. Default: as many as there are pairs, which is also the most' -r
complete -c media-relay -l recordings-dir -d 'Folder that recordings go to, and stay below; made if it is not there. Default: none, and StartRecording is refused' -r -F
complete -c media-relay -l max-recording -d 'Longest recording; it ends by itself then. At most 4h' -r
complete -c media-relay -l port-quarantine -d 'How long a port pair rests after use, so that late packets do not reach the next call. At most 24h' -r
complete -c media-relay -l state-dir -d 'Folder for snapshots of the sessions, one media-relay each: after a crash or a restart on the same host they go on, on the same ports and at the same place of the music. Default: none, and sessions end with the process' -r -F
complete -c media-relay -l packet-path -d 'How packets get in and out; the log and the metric holdfast_media_packet_path say which one it is' -r -f -a "auto\t'`bpf` if it can be set up, else `plain`'
bpf\t'One receiving and one sending socket for all ports; needs CAP_BPF, CAP_NET_ADMIN and CAP_NET_RAW'
plain\t'A socket for each port; needs nothing'"
complete -c media-relay -l gather -d 'Least time between two wake-ups for packets: those that come or fall due meanwhile are moved together, which costs less and delays none by more than this. At most 20ms; 0s: never wait' -r
complete -c media-relay -l rtpproxy-listen -d 'Where Kamailio\'s and OpenSIPS\' rtpproxy modules, and others that speak that protocol, find this relay: udp:ADDR:PORT, tcp:ADDR:PORT, unix:PATH (a connection for each command) or cunix:PATH. May be given several times. Default: none, and nobody does' -r
complete -c media-relay -l rtpproxy-from -d 'From where commands of that protocol are taken over UDP and TCP, addresses or networks: it has no passwords. Over UNIX sockets, the permissions of the file say who may' -r
complete -c media-relay -l rtpproxy-notify -d 'Sockets that its clients may have told of timeouts and digits: tcp:ADDR:PORT, unix:PATH, or tcp:%%CC_SELF%%:PORT for a port of the client itself. May be given several times. Default: none' -r
complete -c media-relay -l rtpproxy-ttl -d 'After how long without a packet from either party a session of such a client is deleted, if nothing is played in it. From 1s to 24h' -r
complete -c media-relay -l rtpproxy-playing-ttl -d 'The same for a session in which something is played: its listener may be muted, or gone without a word. From 1s to 24h' -r
complete -c media-relay -l metrics -d 'Address and port of the Prometheus metrics page `/metrics`; none if not given' -r
complete -c media-relay -l nats-creds -d 'File by whose key we log in to NATS: `.creds`, as `nsc` makes them, or the seed of an nkey alone' -r -F
complete -c media-relay -l grpc-token-file -d 'Who may call gRPC: a file with lines of `NAME:TOKEN`; callers show `authorization: Bearer TOKEN`, and what they change is in the log with their name. The first line is what this service shows to the others; give all of them the same file. Health may be asked without. Default: anyone' -r -F
complete -c media-relay -l grpc-cert -d 'Certificate chain of this service for gRPC by TLS, as PEM, for the host names that others reach it by. It is shown to them as a client, too, where their URL is `https:`. Default: no TLS' -r -F
complete -c media-relay -l grpc-key -d 'Private key of --grpc-cert, as PEM' -r -F
complete -c media-relay -l grpc-ca -d 'Authorities, as PEM, for gRPC by TLS: callers must show a certificate by one of them, and so must the services that this one calls by `https:`' -r -F
complete -c media-relay -l grpc-health -d 'Address and port of a second gRPC port with health alone, without TLS and token, for probes that can do neither; none if not given' -r
complete -c media-relay -l reflection -d 'Whether callers can ask what services, methods and messages there are, as grpcurl does' -r -f -a "on\t''
off\t''"
complete -c media-relay -l otlp-endpoint -d 'Collector of OpenTelemetry that takes traces by OTLP over gRPC, e.g. `http://127.0.0.1:4317`. The trace of a call has its `call_id`, without the dashes, as its id. Default: no traces' -r
complete -c media-relay -l log -d 'What to log: a level, or levels per module, e.g. `info,sip_edge=debug`' -r
complete -c media-relay -l log-format -d 'How to log, on stderr' -r -f -a "auto\t'`human` on a terminal, else `json`'
human\t'One coloured line per event'
json\t'One JSON object per event'"
complete -c media-relay -l drain -d 'How long what is active may go on after SIGTERM, e.g. `30s`, `2h`. A second signal ends it at once' -r
complete -c media-relay -l grpc -d 'Address and port where gRPC (operators and the other services) listens; port 0 takes a free one' -r
complete -c media-relay -l nats-url -d 'Taken, but not used: media events go out over gRPC' -r
complete -c media-relay -l nats-user -d 'Taken, but not used: see --nats-url' -r
complete -c media-relay -l nats-password-file -d 'Taken, but not used: see --nats-url' -r -F
complete -c media-relay -l moh-repair -d 'Play raw files (NAME.0, .3, .8, .9) that are not what their name says as what they are, e.g. 16-bit linear PCM named .8, instead of refusing them'
complete -c media-relay -l moh-normalise -d 'Bring all files to one loudness: -19 dB below full scale on average, and peaks of -1 dB'
complete -c media-relay -s h -l help -d 'Print help (see more with \'--help\')'
complete -c media-relay -s V -l version -d 'Print version'
