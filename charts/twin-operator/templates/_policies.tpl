{{/*
One admission policy with its binding: that a list of what an object of one kind names stays within a list of bounds.
What stood in the object before is let be, so that narrower bounds keep nobody from changing anything else.
Takes root, resource and checks: each has name, bound (its key under `tenants`), allowed (a list), noun, and values, CEL
for what an object (THE) names, of which "" counts for nothing.
*/}}
{{- define "twin-operator.boundsPolicy" -}}
{{- $root := .root -}}
{{- $name := printf "%s-%s.tenants.bettertherapy.io" (include "twin-operator.fullname" $root) .resource -}}
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicy
metadata:
  name: {{ $name | quote }}
  labels: {{- include "twin-operator.labels" $root | nindent 4 }}
spec:
  failurePolicy: Fail
  matchConstraints:
    resourceRules:
      - apiGroups: [bettertherapy.io]
        apiVersions: ["*"]
        operations: [CREATE, UPDATE]
        resources: [{{ .resource }}]
  matchConditions:
    # They take finalizers off, and rewrite what is stored when its version changes.
    - name: not-a-system-controller
      expression: '!("system:serviceaccounts:kube-system" in request.userInfo.groups)'
  variables:
    {{- range .checks }}
    - name: {{ .name }}Allowed
      expression: {{ .allowed | toJson | quote }}
    - name: {{ .name }}Before
      expression: {{ printf "oldObject == null ? [] : %s" (replace "THE" "oldObject" .values) | quote }}
    - name: {{ .name }}Refused
      expression: {{ printf "%s.filter(x, x != '' && !(x in variables.%sBefore) && !variables.%sAllowed.exists(p, p.endsWith('*') ? x.startsWith(p.substring(0, size(p) - 1)) : x == p))" (replace "THE" "object" .values) .name .name | quote }}
    {{- end }}
  validations:
    {{- range .checks }}
    - expression: size(variables.{{ .name }}Refused) == 0
      messageExpression: {{ printf "'%s ' + variables.%sRefused[0] + ' is not for tenants to use here: leave it out, or ask who runs the platform to add it to tenants.%s of the chart twin-operator' + (size(variables.%sAllowed) == 0 || size(variables.%sAllowed) > 8 ? '' : ' (allowed: ' + variables.%sAllowed.join(', ') + ')')" .noun .name .bound .name .name .name | quote }}
      message: {{ printf "%s is not for tenants to use here: see tenants.%s of the operator's chart" .noun .bound | quote }}
      reason: Forbidden
    {{- end }}
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicyBinding
metadata:
  name: {{ $name | quote }}
  labels: {{- include "twin-operator.labels" $root | nindent 4 }}
spec:
  policyName: {{ $name }}
  validationActions: [Deny]
  {{- with $root.Values.watchNamespace }}
  matchResources:
    namespaceSelector:
      matchLabels:
        kubernetes.io/metadata.name: {{ . | quote }}
  {{- end }}
{{- end }}

{{/* The images that the operator gives to pods itself: naming one of them is no wish of one's own. */}}
{{- define "twin-operator.ownImages" -}}
{{- $root := . -}}
{{- $found := list -}}
{{- range $image := .Values.images }}{{ $found = append $found (include "twin-operator.image" (dict "image" $image "root" $root)) }}{{ end -}}
{{- $found | toJson -}}
{{- end }}
