{{- define "local-subnet.name" -}}
{{- if gt (len .Release.Name) 50 -}}
{{- fail (printf "the release's name %q has more than 50 characters: choose a shorter one, the Service is named after it" .Release.Name) -}}
{{- end -}}
{{- if contains "." .Release.Name -}}
{{- fail (printf "the release's name %q contains a dot: a Service is named after it, choose one without" .Release.Name) -}}
{{- end -}}
{{- if regexMatch "^[0-9]" .Release.Name -}}
{{- fail (printf "the release's name %q begins with a digit: a Service is named after it, choose one that begins with a letter" .Release.Name) -}}
{{- end -}}
{{- .Release.Name -}}
{{- end }}

{{- define "local-subnet.selectorLabels" -}}
app.kubernetes.io/name: local-subnet
app.kubernetes.io/instance: {{ .Release.Name | quote }}
{{- end }}

{{- define "local-subnet.labels" -}}
{{ include "local-subnet.selectorLabels" . }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/part-of: bettertherapy
{{- end }}

{{- define "local-subnet.claim" -}}
{{- .Values.persistence.existingClaim | default (printf "%s-chain" (include "local-subnet.name" .)) -}}
{{- end }}

{{- define "local-subnet.image" -}}
{{- include "bettertherapy.image" (dict "image" .Values.image "root" .) -}}
{{- end }}
