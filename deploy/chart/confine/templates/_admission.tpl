{{/* CEL has no functions, so what is used twice stands here. */}}

{{/* The pod or pod template in an object of any kind that the policy matches. */}}
{{- define "confine.cel.pod" -}}
request.kind.kind == 'Pod' ? {{ . }} :
request.kind.kind == 'PodTemplate' ? {{ . }}.template :
request.kind.kind == 'CronJob' ? {{ . }}.spec.jobTemplate.spec.template : {{ . }}.spec.template
{{- end }}

{{/* All that has a securityContext in a pod: its spec, and every container. */}}
{{- define "confine.cel.scopes" -}}
[{{ . }}.spec] + {{ . }}.spec.?containers.orValue([]) + {{ . }}.spec.?initContainers.orValue([]) + {{ . }}.spec.?ephemeralContainers.orValue([])
{{- end }}

{{- define "confine.cel.apparmorAnnotation" -}}
container.apparmor.security.beta.kubernetes.io/
{{- end }}
