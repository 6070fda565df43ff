{{/* The beginning of every name. */}}
{{- define "holdfast.name" -}}
{{- if contains .Chart.Name .Release.Name }}{{ .Release.Name | trunc 40 | trimSuffix "-" }}
{{- else }}{{ printf "%s-%s" .Release.Name .Chart.Name | trunc 40 | trimSuffix "-" }}{{ end }}
{{- end }}

{{/* What picks the pods of one service out: (dict "root" $ "service" "sip-edge"). */}}
{{- define "holdfast.selector" -}}
app.kubernetes.io/name: holdfast
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .service }}
{{- end }}

{{- define "holdfast.labels" -}}
{{ include "holdfast.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" }}
{{- end }}

{{- define "holdfast.serviceAccount" -}}
{{- default (ternary (include "holdfast.name" .) "default" .Values.serviceAccount.create) .Values.serviceAccount.name }}
{{- end }}

{{- define "holdfast.scheme" -}}
{{ ternary "https" "http" (ne .Values.grpc.tls.secret "") }}
{{- end }}

{{/* Beside what the flags of one process say: values that cannot work together. */}}
{{- define "holdfast.check" -}}
{{- $v := .Values }}
{{- $edges := int (ternary $v.sipEdge.autoscaling.maxReplicas $v.sipEdge.replicas $v.sipEdge.autoscaling.enabled) }}
{{- if and $v.sipEdge.enabled $v.mediaRelay.enabled (lt (int (ternary $v.mediaRelay.autoscaling.minReplicas $v.mediaRelay.replicas $v.mediaRelay.autoscaling.enabled)) $edges) }}
{{- fail "mediaRelay: fewer replicas than sip-edges: each sip-edge has the media-relay of its number. Set mediaRelay.replicas (or autoscaling.minReplicas) to as many" }}
{{- end }}
{{- if and $v.scheduler.enabled (not $v.scheduler.database.secret.name) (hasPrefix "sqlite:" $v.scheduler.database.url) (or (gt (int $v.scheduler.replicas) 1) $v.scheduler.autoscaling.enabled) }}
{{- fail "scheduler: several replicas on SQLite: a file is for one process. Set scheduler.database to PostgreSQL, or scheduler.replicas to 1" }}
{{- end }}
{{- if and $v.queueSvc.enabled (not $v.queueSvc.database.secret.name) (hasPrefix "sqlite:" $v.queueSvc.database.url) (gt (int $v.queueSvc.replicas) 1) }}
{{- fail "queueSvc: several replicas on SQLite: a file is for one process. Set queueSvc.database to PostgreSQL or MariaDB, or queueSvc.replicas to 1" }}
{{- end }}
{{- if ne (empty $v.nats.login.user) (empty $v.nats.login.secret) }}
{{- fail "nats.login: a name without a password, or the other way round. Set nats.login.user and nats.login.secret, or neither" }}
{{- end }}
{{- if and $v.nats.creds.secret $v.nats.login.secret }}
{{- fail "nats: two ways to log in. Set nats.login or nats.creds, not both" }}
{{- end }}
{{- if ge (int $v.mediaRelay.rtpPorts.first) (int $v.mediaRelay.rtpPorts.last) }}
{{- fail "mediaRelay.rtpPorts: first is not below last" }}
{{- end }}
{{- end }}

{{/* Metadata of a pod. */}}
{{- define "holdfast.podMetadata" -}}
labels:
  {{- include "holdfast.labels" . | nindent 2 }}
  {{- with .root.Values.podLabels }}{{ toYaml . | nindent 2 }}{{ end }}
annotations:
  kubectl.kubernetes.io/default-container: {{ .service }}
  {{- with .checksum }}
  checksum/dial-plan: {{ . }}
  {{- end }}
  {{- with .root.Values.podAnnotations }}{{ toYaml . | nindent 2 }}{{ end }}
{{- end }}

{{/* What all pods have in their spec. */}}
{{- define "holdfast.podSpec" -}}
serviceAccountName: {{ include "holdfast.serviceAccount" .root }}
automountServiceAccountToken: false
enableServiceLinks: false
terminationGracePeriodSeconds: {{ add (int .values.drainSeconds) 30 }}
{{- with .values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .root.Values.image.pullSecrets }}
imagePullSecrets: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- if .values.affinity }}
affinity: {{- toYaml .values.affinity | nindent 2 }}
{{- else if .values.hostNetwork }}
# Two on one node would want the same ports.
affinity:
  podAntiAffinity:
    requiredDuringSchedulingIgnoredDuringExecution:
      - topologyKey: kubernetes.io/hostname
        labelSelector:
          matchLabels: {{- include "holdfast.selector" . | nindent 12 }}
{{- end }}
{{- if .values.spread }}
topologySpreadConstraints:
  {{- range list "topology.kubernetes.io/zone" "kubernetes.io/hostname" }}
  - topologyKey: {{ . }}
    maxSkew: 1
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels: {{- include "holdfast.selector" $ | nindent 8 }}
  {{- end }}
{{- end }}
{{- if .values.hostNetwork }}
hostNetwork: true
dnsPolicy: ClusterFirstWithHostNet
{{- end }}
securityContext:
  runAsNonRoot: {{ not .root_user }}
  runAsUser: {{ ternary 0 65532 (default false .root_user) }}
  runAsGroup: 65532
  fsGroup: 65532
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile: {type: RuntimeDefault}
{{- end }}

{{/* What all containers have; $ports.health serves probes when gRPC is TLS, which they cannot do. */}}
{{- define "holdfast.container" -}}
name: {{ .service }}
image: {{ printf "%s/%s:%s" .root.Values.image.repository .service (default .root.Chart.AppVersion .root.Values.image.tag) }}
imagePullPolicy: {{ .root.Values.image.pullPolicy }}
{{- $probe := ternary .values.ports.health .values.ports.grpc (ne .root.Values.grpc.tls.secret "") }}
startupProbe:
  grpc: {port: {{ $probe }}, service: {{ .grpc }}}
  periodSeconds: 2
  failureThreshold: 60
readinessProbe:
  grpc: {port: {{ $probe }}, service: {{ .grpc }}}
  periodSeconds: 5
  failureThreshold: 2
# Not by gRPC: a service that drains says NOT_SERVING, and must not be killed for that.
livenessProbe:
  tcpSocket: {port: {{ $probe }}}
  periodSeconds: 10
  failureThreshold: 6
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities:
    drop: [ALL]
    {{- if .root_user }}
    add: [BPF, NET_ADMIN, NET_RAW]
    {{- end }}
resources: {{- toYaml .values.resources | nindent 2 }}
env:
  - name: POD_NAME
    valueFrom: {fieldRef: {fieldPath: metadata.name}}
  - name: POD_IP
    valueFrom: {fieldRef: {fieldPath: status.podIP}}
  - name: POD_INDEX
    valueFrom: {fieldRef: {fieldPath: "metadata.labels['apps.kubernetes.io/pod-index']"}}
  {{- if ne .service "media-relay" }}
  - name: HOLDFAST_NATS_URL
    {{- if .root.Values.nats.secret.name }}
    valueFrom: {secretKeyRef: {name: {{ .root.Values.nats.secret.name }}, key: {{ .root.Values.nats.secret.key }}}}
    {{- else }}
    value: {{ .root.Values.nats.url | quote }}
    {{- end }}
  {{- end }}
  {{- with .values.callRecords }}
  {{- if or .url .secret.name }}
  - name: HOLDFAST_CDR_DATABASE_URL
    {{- if .secret.name }}
    valueFrom: {secretKeyRef: {name: {{ .secret.name }}, key: {{ .secret.key }}}}
    {{- else }}
    value: {{ .url | quote }}
    {{- end }}
  {{- end }}
  {{- end }}
  {{- with .values.database }}
  - name: HOLDFAST_DATABASE_URL
    {{- if .secret.name }}
    valueFrom: {secretKeyRef: {name: {{ .secret.name }}, key: {{ .secret.key }}}}
    {{- else }}
    value: {{ .url | quote }}
    {{- end }}
  {{- end }}
{{- end }}

{{/* Flags that all services take. On the node's address gRPC is bound to that address only. */}}
{{- define "holdfast.commonArgs" -}}
{{- $listen := ternary "$(POD_IP)" .root.Values.listenAddress (default false .values.hostNetwork) }}
- --grpc={{ $listen }}:{{ .values.ports.grpc }}
- --metrics={{ $listen }}:{{ .values.ports.metrics }}
- --log={{ .root.Values.log }}
- --log-format=json
- --drain={{ .values.drainSeconds }}s
{{- with .root.Values.tracing.otlpEndpoint }}
- --otlp-endpoint={{ . }}
{{- end }}
{{- if ne .service "media-relay" }}
{{- with .root.Values.nats.login }}
{{- if .secret }}
- --nats-user={{ .user }}
- --nats-password-file=/etc/holdfast/nats/{{ .key }}
{{- end }}
{{- end }}
{{- with .root.Values.nats.creds }}
{{- if .secret }}
- --nats-creds=/etc/holdfast/nats/{{ .key }}
{{- end }}
{{- end }}
{{- end }}
{{- with .root.Values.grpc }}
{{- if not .reflection }}
- --reflection=off
{{- end }}
{{- if .token.secret }}
- --grpc-token-file=/etc/holdfast/token/{{ .token.key }}
{{- end }}
{{- if .tls.secret }}
- --grpc-cert=/etc/holdfast/tls/tls.crt
- --grpc-key=/etc/holdfast/tls/tls.key
- --grpc-ca=/etc/holdfast/tls/ca.crt
- --grpc-health={{ $listen }}:{{ $.values.ports.health }}
{{- end }}
{{- end }}
{{- end }}

{{- define "holdfast.extraArgs" -}}
{{- range .values.extraArgs }}
- {{ . | quote }}
{{- end }}
{{- end }}

{{- define "holdfast.commonPorts" -}}
- {name: grpc, containerPort: {{ .values.ports.grpc }}}
{{- if .root.Values.grpc.tls.secret }}
- {name: health, containerPort: {{ .values.ports.health }}}
{{- end }}
- {name: metrics, containerPort: {{ .values.ports.metrics }}}
{{- end }}

{{/* The Secret by which a service logs in to NATS; none if it does not. */}}
{{- define "holdfast.natsSecret" -}}
{{- if ne .service "media-relay" }}{{ default .root.Values.nats.login.secret .root.Values.nats.creds.secret }}{{ end }}
{{- end }}

{{- define "holdfast.commonMounts" -}}
{{- if include "holdfast.natsSecret" . }}
- {name: nats, mountPath: /etc/holdfast/nats, readOnly: true}
{{- end }}
{{- with .root.Values.grpc.token.secret }}
- {name: token, mountPath: /etc/holdfast/token, readOnly: true}
{{- end }}
{{- with .root.Values.grpc.tls.secret }}
- {name: tls, mountPath: /etc/holdfast/tls, readOnly: true}
{{- end }}
{{- end }}

{{- define "holdfast.commonVolumes" -}}
{{- with include "holdfast.natsSecret" . }}
- {name: nats, secret: {secretName: {{ . }}}}
{{- end }}
{{- with .root.Values.grpc.token.secret }}
- {name: token, secret: {secretName: {{ . }}}}
{{- end }}
{{- with .root.Values.grpc.tls.secret }}
- {name: tls, secret: {secretName: {{ . }}}}
{{- end }}
{{- end }}

{{/* A claim for each pod: (dict "root" $ "name" "state" "storageClass" "" "size" "1Gi"). */}}
{{- define "holdfast.claim" -}}
- metadata: {name: {{ .name }}}
  spec:
    accessModes: [ReadWriteOnce]
    {{- with .storageClass }}
    storageClassName: {{ . }}
    {{- end }}
    resources: {requests: {storage: {{ .size }}}}
{{- end }}
