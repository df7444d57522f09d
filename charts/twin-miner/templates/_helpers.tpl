{{/* The release's name is the pool's name, from which the operator makes the names of all it creates. */}}
{{- define "twin-miner.pool" -}}
{{- if gt (len .Release.Name) 40 -}}
{{- fail (printf "the release's name %q has more than 40 characters: choose a shorter one, the pool is named after it" .Release.Name) -}}
{{- end -}}
{{- if contains "." .Release.Name -}}
{{- fail (printf "the release's name %q contains a dot: a Service is named after it, choose one without" .Release.Name) -}}
{{- end -}}
{{- if regexMatch "^[0-9]" .Release.Name -}}
{{- fail (printf "the release's name %q begins with a digit: a Service is named after it, choose one that begins with a letter" .Release.Name) -}}
{{- end -}}
{{- .Release.Name -}}
{{- end }}

{{- define "twin-miner.selectorLabels" -}}
app.kubernetes.io/name: twin-miner
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "twin-miner.labels" -}}
{{ include "twin-miner.selectorLabels" . }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/part-of: bettertherapy
{{- end }}

{{/* The Secret that the miner reads: the pool's own choice, else an existing one, else the one that the operator makes. */}}
{{- define "twin-miner.accessSecret" -}}
{{- $chosen := dig "miner" "accessSecretRef" "name" "" .Values.pool -}}
{{- $chosen | default .Values.access.existingSecret | default (printf "%s-access" (include "twin-miner.pool" .)) -}}
{{- end }}

{{- define "twin-miner.operatorsAccessSecret" -}}
{{- if not (or (dig "miner" "accessSecretRef" "name" "" .Values.pool) .Values.access.existingSecret) }}true{{ end -}}
{{- end }}
