{{/* Names are fixed: policies, roles and tools go by them, and a cluster has one Confine. */}}

{{- define "confine.labels" -}}
app.kubernetes.io/name: confine
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
{{- end }}

{{- define "confine.selector" -}}
app.kubernetes.io/name: confine
app.kubernetes.io/component: {{ . }}
{{- end }}

{{- define "confine.image" -}}
{{- .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- with .Values.image.digest }}@{{ . }}{{ end }}
{{- end }}

{{/* What a label calls a kubelet root: /mnt/disk/kubelet is mnt-disk-kubelet. */}}
{{- define "confine.rootLabel" -}}
{{- . | trimPrefix "/" | replace "/" "-" }}
{{- end }}

{{/* The user every container but the init container runs as. */}}
{{- define "confine.restricted" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
runAsNonRoot: true
capabilities:
  drop: [ALL]
{{- end }}
