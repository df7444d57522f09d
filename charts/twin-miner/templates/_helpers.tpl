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
app.kubernetes.io/instance: {{ .Release.Name | quote }}
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
{{- $chosen := dig "miner" "accessSecretRef" "name" "" (include "bettertherapy.present" .Values.pool | fromJson) -}}
{{- $chosen | default (include "twin-miner.existingSecret" .) | default (printf "%s-access" (include "twin-miner.pool" .)) -}}
{{- end }}

{{- define "twin-miner.operatorsAccessSecret" -}}
{{- if not (or (dig "miner" "accessSecretRef" "name" "" (include "bettertherapy.present" .Values.pool | fromJson)) (include "twin-miner.existingSecret" .)) }}true{{ end -}}
{{- end }}

{{- define "twin-miner.existingSecret" -}}
{{- (.Values.access | default dict).existingSecret | default "" -}}
{{- end }}

{{/* Labels of the pool: those that twins choose it by can't be other than they are. */}}
{{- define "twin-miner.poolLabels" -}}
{{- $own := include "twin-miner.labels" . | fromYaml }}
{{- range $name, $value := include "twin-miner.selectorLabels" . | fromYaml }}
{{- if ne $value (get ($.Values.poolLabels | default dict) $name | default $value) }}
{{- fail (printf "poolLabels: %s is how this release's twins find their pool: choose another label" $name) }}
{{- end }}
{{- end }}
{{- merge dict (.Values.poolLabels | default dict) $own | toYaml -}}
{{- end }}

{{/* Whom `helm test` asks; empty: nobody. */}}
{{- define "twin-miner.testTwin" -}}
{{- range $index, $twin := .Values.twins }}{{ if not $index }}{{ $twin.name }}{{ end }}{{ end -}}
{{- end }}

{{/* The Secrets that the values name and that nobody makes, as lines of bettertherapy.namedSecrets. */}}
{{- define "twin-miner.namedSecrets" -}}
{{- $found := list (include "bettertherapy.namedSecrets" (dict "at" (include "bettertherapy.present" .Values.pool | fromJson) "path" "pool")) }}
{{- if not (dig "miner" "accessSecretRef" "name" "" (include "bettertherapy.present" .Values.pool | fromJson)) }}
{{- with include "twin-miner.existingSecret" . }}
{{- $found = append $found (printf "access.existingSecret %s -" .) }}
{{- end }}
{{- end }}
{{- range .Values.twins }}
{{- $found = append $found (include "bettertherapy.namedSecrets" (dict "at" (omit (include "bettertherapy.present" . | fromJson) "name") "path" (printf "twins[%s]" .name))) }}
{{- end }}
{{- compact $found | join "\n" -}}
{{- end }}
