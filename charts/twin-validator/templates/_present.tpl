{{- /* Values without their nulls, as JSON. twin-validator's is a copy by charts/generate.py. */}}

{{- define "bettertherapy.present" -}}
{{- if kindIs "map" . -}}
{{- $kept := dict -}}
{{- range $key, $value := . -}}
{{- if not (kindIs "invalid" $value) -}}
{{- $_ := set $kept $key (include "bettertherapy.present" $value | printf "{\"value\": %s}" | fromJson).value -}}
{{- end -}}
{{- end -}}
{{- toJson $kept -}}
{{- else if kindIs "slice" . -}}
{{- $kept := list -}}
{{- range $value := . -}}
{{- $kept = append $kept (include "bettertherapy.present" $value | printf "{\"value\": %s}" | fromJson).value -}}
{{- end -}}
{{- toJson $kept -}}
{{- else -}}
{{- toJson . -}}
{{- end -}}
{{- end }}
