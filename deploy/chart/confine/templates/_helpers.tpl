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

{{/* What a container gets that needs nothing. */}}
{{- define "confine.restricted" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
runAsNonRoot: true
capabilities:
  drop: [ALL]
{{- end }}

{{/* The kinds of profile that nodes install. */}}
{{- define "confine.kinds" -}}
seccomp{{ if .Values.agent.kinds.apparmor }},apparmor{{ end }}{{ if .Values.agent.kinds.selinux }},selinux{{ end }}
{{- end }}

{{/* Whoever changes the SELinux policy must be allowed to by it. */}}
{{- define "confine.seLinuxOptions" -}}
{{- $options := deepCopy .Values.agent.seLinuxOptions }}
{{- if and .Values.agent.kinds.selinux (not $options.type) }}
{{- $options = set $options "type" "spc_t" }}
{{- end }}
{{- with $options }}{{ toYaml . }}{{ end }}
{{- end }}

{{/* Compilers of SELinux policy run in the agent's container. */}}
{{- define "confine.agentResources" -}}
{{- $limits := .Values.agent.resources.limits | default (dict "memory" (.Values.agent.kinds.selinux | ternary "1Gi" "512Mi")) }}
{{- toYaml (merge (dict "limits" $limits) .Values.agent.resources) }}
{{- end }}
