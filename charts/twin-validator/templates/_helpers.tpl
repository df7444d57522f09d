{{/* The release's name is the validator's name, from which the operator makes the names of all it creates. */}}
{{- define "twin-validator.name" -}}
{{- if gt (len .Release.Name) 40 -}}
{{- fail (printf "the release's name %q has more than 40 characters: choose a shorter one, the validator is named after it" .Release.Name) -}}
{{- end -}}
{{- if contains "." .Release.Name -}}
{{- fail (printf "the release's name %q contains a dot: a Service is named after it, choose one without" .Release.Name) -}}
{{- end -}}
{{- if regexMatch "^[0-9]" .Release.Name -}}
{{- fail (printf "the release's name %q begins with a digit: a Service is named after it, choose one that begins with a letter" .Release.Name) -}}
{{- end -}}
{{- .Release.Name -}}
{{- end }}

{{- define "twin-validator.labels" -}}
app.kubernetes.io/name: twin-validator
app.kubernetes.io/instance: {{ .Release.Name | quote }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/part-of: bettertherapy
{{- end }}

{{/* The Secret with the gateway's API keys: the validator's own choice, else the one that the operator makes. */}}
{{- define "twin-validator.keysSecret" -}}
{{- dig "gateway" "keysSecretRef" "name" "" (include "bettertherapy.present" .Values.validator | fromJson) | default (printf "%s-gateway-keys" (include "twin-validator.name" .)) -}}
{{- end }}

{{/* Whom `helm test` asks; empty: nobody. */}}
{{- define "twin-validator.testTwin" -}}
{{- $first := "" }}
{{- range $index, $twin := .Values.twins }}{{ if not $index }}{{ $first = $twin.name }}{{ end }}{{ end -}}
{{- (.Values.test | default dict).twin | default $first -}}
{{- end }}

{{- define "twin-validator.existingSecret" -}}
{{- (.Values.postgresql | default dict).existingSecret | default "" -}}
{{- end }}

{{/* The Secrets that the values name and that nobody makes, as lines of bettertherapy.namedSecrets. */}}
{{- define "twin-validator.namedSecrets" -}}
{{- $found := list (include "bettertherapy.namedSecrets" (dict "at" (include "bettertherapy.present" .Values.validator | fromJson) "path" "validator")) }}
{{- with include "twin-validator.existingSecret" . }}
{{- $found = append $found (printf "postgresql.existingSecret %s -" .) }}
{{- end }}
{{- range .Values.twins }}
{{- $found = append $found (include "bettertherapy.namedSecrets" (dict "at" (omit (include "bettertherapy.present" . | fromJson) "name") "path" (printf "twins[%s]" .name))) }}
{{- end }}
{{- compact $found | join "\n" -}}
{{- end }}
