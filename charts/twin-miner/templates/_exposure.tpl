{{- /* Ways in from outside. twin-validator's is a copy by charts/generate.py. */}}

{{/* The names of an `.at` that is enabled; `.what` says in the error what wants them. */}}
{{- define "bettertherapy.hosts" -}}
{{- if not .at.hosts }}
{{- fail (printf "%s.hosts is empty: give at least one name by which clients ask" .what) }}
{{- end }}
{{- toYaml .at.hosts -}}
{{- end }}

{{/* Objects that lead to port 80 of Service `.service`, whose pods have the labels `.pods` and listen at `.port`. */}}
{{- define "bettertherapy.exposure" -}}
{{- $exposure := .exposure | default dict }}
{{- $ingress := $exposure.ingress | default dict }}
{{- $gateway := $exposure.gateway | default dict }}
{{- $more := $exposure.service | default dict }}
{{- if $ingress.enabled }}
{{- $hosts := include "bettertherapy.hosts" (dict "at" $ingress "what" "exposure.ingress") | fromYamlArray }}
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata:
  name: {{ .service | quote }}
  namespace: {{ .namespace | quote }}
  labels: {{- .labels | nindent 4 }}
  {{- with $ingress.annotations }}
  annotations: {{- toYaml . | nindent 4 }}
  {{- end }}
spec:
  {{- with $ingress.className }}
  ingressClassName: {{ . | quote }}
  {{- end }}
  {{- with $ingress.tlsSecret }}
  tls:
    - secretName: {{ . | quote }}
      hosts: {{- toYaml $hosts | nindent 8 }}
  {{- end }}
  rules:
    {{- range $hosts }}
    - host: {{ . | quote }}
      http:
        paths:
          - path: /
            pathType: Prefix
            backend:
              service:
                name: {{ $.service | quote }}
                port:
                  name: http
    {{- end }}
{{- end }}
{{- if $gateway.enabled }}
{{- $hosts := include "bettertherapy.hosts" (dict "at" $gateway "what" "exposure.gateway") | fromYamlArray }}
{{- if and $gateway.className $gateway.parentRefs }}
{{- fail "exposure.gateway: className makes a Gateway, and parentRefs names yours: remove one of them" }}
{{- end }}
{{- if not (or $gateway.className $gateway.parentRefs) }}
{{- fail "exposure.gateway: name Gateways of yours in parentRefs, or a className, of which one is made" }}
{{- end }}
{{- if and $gateway.tlsSecret (not $gateway.className) }}
{{- fail "exposure.gateway.tlsSecret: TLS belongs to the Gateways in parentRefs: set it there, or remove it" }}
{{- end }}
{{- if $gateway.className }}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata:
  name: {{ .service | quote }}
  namespace: {{ .namespace | quote }}
  labels: {{- .labels | nindent 4 }}
  {{- with $gateway.annotations }}
  annotations: {{- toYaml . | nindent 4 }}
  {{- end }}
spec:
  gatewayClassName: {{ $gateway.className | quote }}
  listeners:
    {{- range $index, $host := $hosts }}
    - name: host-{{ $index }}
      hostname: {{ $host | quote }}
      {{- if $gateway.tlsSecret }}
      port: 443
      protocol: HTTPS
      tls:
        mode: Terminate
        certificateRefs:
          - kind: Secret
            name: {{ $gateway.tlsSecret | quote }}
      {{- else }}
      port: 80
      protocol: HTTP
      {{- end }}
      allowedRoutes:
        namespaces:
          from: Same
    {{- end }}
{{- end }}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata:
  name: {{ .service | quote }}
  namespace: {{ .namespace | quote }}
  labels: {{- .labels | nindent 4 }}
  {{- if and $gateway.annotations (not $gateway.className) }}
  annotations: {{- toYaml $gateway.annotations | nindent 4 }}
  {{- end }}
spec:
  parentRefs:
    {{- if $gateway.className }}
    - name: {{ .service | quote }}
    {{- else }}
    {{- toYaml $gateway.parentRefs | nindent 4 }}
    {{- end }}
  hostnames: {{- toYaml $hosts | nindent 4 }}
  rules:
    - backendRefs:
        - name: {{ .service | quote }}
          port: 80
      {{- with $gateway.timeout }}
      timeouts:
        request: {{ . | quote }}
      {{- end }}
{{- end }}
{{- if $more.type }}
---
apiVersion: v1
kind: Service
metadata:
  name: {{ .service }}-public
  namespace: {{ .namespace | quote }}
  labels: {{- .labels | nindent 4 }}
  {{- with $more.annotations }}
  annotations: {{- toYaml . | nindent 4 }}
  {{- end }}
spec:
  type: {{ $more.type }}
  selector: {{- toYaml .pods | nindent 4 }}
  ports:
    - name: http
      port: 80
      targetPort: {{ .port }}
      protocol: TCP
      appProtocol: http
      {{- with $more.nodePort }}
      nodePort: {{ int . }}
      {{- end }}
  {{- if eq $more.type "LoadBalancer" }}
  {{- with $more.loadBalancerClass }}
  loadBalancerClass: {{ . | quote }}
  {{- end }}
  {{- with $more.sourceRanges }}
  loadBalancerSourceRanges: {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- end }}
{{- end }}
{{- end }}

{{/* What NOTES says of them; nothing without any. */}}
{{- define "bettertherapy.exposureNotes" -}}
{{- $exposure := .exposure | default dict }}
{{- range $kind := list "ingress" "gateway" }}
{{- $way := get $exposure $kind | default dict }}
{{- if $way.enabled }}
{{- $tls := or $way.tlsSecret $way.parentRefs }}
   {{- range $way.hosts }}
     {{ if $tls }}https{{ else }}http{{ end }}://{{ . }}
   {{- end }}
{{- with $way.tlsSecret }}

     # Where cert-manager doesn't make Secret {{ . }}:
     kubectl -n {{ $.namespace }} create secret tls {{ . }} --cert=tls.crt --key=tls.key
{{- end }}
{{- if not $tls }}

     Without TLS everybody on the way reads tokens and questions: set
     exposure.{{ $kind }}.tlsSecret.
{{- end }}
{{- end }}
{{- end }}
{{- with ($exposure.service | default dict).type }}
     kubectl -n {{ $.namespace }} get service {{ $.service }}-public

     This Service speaks no TLS: let something before it do so.
{{- end }}
{{- end }}
