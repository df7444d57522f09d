{{- define "twin-operator.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" -}}
{{- end }}

{{- define "twin-operator.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 52 | trimSuffix "-" -}}
{{- else -}}
{{- if contains "." .Release.Name -}}
{{- fail (printf "the release's name %q contains a dot: a Service is named after it, choose one without, or set fullnameOverride" .Release.Name) -}}
{{- end -}}
{{- if regexMatch "^[0-9]" .Release.Name -}}
{{- fail (printf "the release's name %q begins with a digit: a Service is named after it, choose one that begins with a letter, or set fullnameOverride" .Release.Name) -}}
{{- end -}}
{{- $name := include "twin-operator.name" . -}}
{{- if contains $name .Release.Name -}}
{{- .Release.Name | trunc 52 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 52 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}
{{- end }}

{{- define "twin-operator.selectorLabels" -}}
app.kubernetes.io/name: {{ include "twin-operator.name" . | quote }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
app.kubernetes.io/component: operator
{{- end }}

{{- define "twin-operator.metaLabels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/part-of: bettertherapy
{{- end }}

{{- define "twin-operator.labels" -}}
{{ include "twin-operator.selectorLabels" . }}
{{ include "twin-operator.metaLabels" . }}
{{- end }}

{{- define "twin-operator.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "twin-operator.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- required "serviceAccount.create is false: set serviceAccount.name to the account that the operator shall use" .Values.serviceAccount.name -}}
{{- end -}}
{{- end }}

{{/* Not empty where an object of the Prometheus operator's is to be made: dict "root" . "kind" "ServiceMonitor". */}}
{{- define "twin-operator.monitored" -}}
{{- $wanted := .root.Values.monitoring.enabled -}}
{{- if eq (toString $wanted) "Auto" -}}
{{- if .root.Capabilities.APIVersions.Has (printf "monitoring.coreos.com/v1/%s" .kind) -}}yes{{- end -}}
{{- else if $wanted -}}yes{{- end -}}
{{- end }}

{{- define "twin-operator.image" -}}
{{- include "bettertherapy.image" . -}}
{{- end }}

{{/* What the restricted Pod Security Standard asks of a pod, and a read-only root beside it. */}}
{{- define "twin-operator.podSecurityContext" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{- define "twin-operator.containerSecurityContext" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
privileged: false
capabilities:
  drop: [ALL]
{{- end }}
