{{- /* The reference of an image. The other charts' are copies by charts/generate.py. */}}

{{/*
Of `.image`: repository@digest, else repository:tag, else repository:appVersion. With global.imageRegistry a repository
of our own is looked for there: registry/neuron for bettertherapy/neuron. Others stay where they are.
*/}}
{{- define "bettertherapy.image" -}}
{{- $repository := .image.repository -}}
{{- with (.root.Values.global | default dict).imageRegistry -}}
{{- if hasPrefix "bettertherapy/" $repository -}}
{{- $repository = printf "%s/%s" (trimSuffix "/" .) (trimPrefix "bettertherapy/" $repository) -}}
{{- end -}}
{{- end -}}
{{- if .image.digest -}}
{{- printf "%s@%s" $repository .image.digest -}}
{{- else -}}
{{- printf "%s:%s" $repository (default .root.Chart.AppVersion .image.tag) -}}
{{- end -}}
{{- end }}
