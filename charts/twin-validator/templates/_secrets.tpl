{{- /* The Secrets that values name, and the command that makes each. twin-validator's is a copy by charts/generate.py. */}}

{{/* Lines `path name scheme` of what `.at`, at `.path` in the values, names; the scheme is that of the place beside it. */}}
{{- define "bettertherapy.namedSecrets" -}}
{{- $found := list }}
{{- range $key, $value := .at }}
{{- $path := printf "%s.%s" $.path $key }}
{{- if or (eq $key "secretRef" "secretKeyRef") (hasSuffix "SecretRef" $key) }}
{{- with $value }}
{{- $found = append $found (printf "%s %s %s" $path .name (get $.at "uri" | default "" | splitList ":" | first | default "-")) }}
{{- end }}
{{- else if eq $key "secretName" }}
{{- $found = append $found (printf "%s %s -" $path $value) }}
{{- else if eq $key "imagePullSecrets" }}
{{- range $value }}
{{- $found = append $found (printf "%s %s -" $path .name) }}
{{- end }}
{{- else if kindIs "map" $value }}
{{- $found = append $found (include "bettertherapy.namedSecrets" (dict "at" $value "path" $path)) }}
{{- else if kindIs "slice" $value }}
{{- range $index, $each := $value }}
{{- if kindIs "map" $each }}
{{- $found = append $found (include "bettertherapy.namedSecrets" (dict "at" $each "path" (printf "%s[%d]" $path $index))) }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}
{{- compact $found | join "\n" -}}
{{- end }}

{{/* What `kubectl create secret KIND NAME` needs for the Secret at `.path`; the first word is the kind. */}}
{{- define "bettertherapy.secretOptions" -}}
{{- if hasSuffix ".imagePullSecrets" .path -}}
docker-registry --docker-server=HOST --docker-username=USER --docker-password=PASSWORD
{{- else if hasSuffix ".walletSecretRef" .path -}}
generic --from-file=hotkey=$HOME/.bittensor/wallets/WALLET/hotkeys/HOTKEY
{{- else if or (hasSuffix ".accessSecretRef" .path) (eq "access.existingSecret" .path) -}}
generic --from-literal=CLIENT=$(openssl rand -hex 32)
{{- else if hasSuffix ".engine.secretRef" .path -}}
generic --from-literal=apiKey=KEY
{{- else if hasSuffix ".mlflow.secretRef" .path -}}
generic --from-literal=MLFLOW_TRACKING_TOKEN=TOKEN
{{- else if or (hasSuffix ".judgeRef.secretRef" .path) (hasSuffix ".judge.secretRef" .path) -}}
generic --from-literal=key=KEY
{{- else if hasSuffix ".keysSecretRef" .path -}}
generic --from-file=keys.json=keys.json
{{- else if or (hasSuffix ".uriSecretRef" .path) (eq "postgresql.existingSecret" .path) -}}
generic --from-literal=uri=postgresql://USER:PASSWORD@HOST:5432/NAME
{{- else if and (hasSuffix ".store.secretRef" .path) (eq .scheme "s3") -}}
generic --from-literal=AWS_ACCESS_KEY_ID=ID --from-literal=AWS_SECRET_ACCESS_KEY=KEY --from-literal=AWS_REGION=REGION
{{- else if and (hasSuffix ".store.secretRef" .path) (eq .scheme "gs") -}}
generic --from-file=GOOGLE_SERVICE_ACCOUNT_KEY=key.json
{{- else if and (hasSuffix ".store.secretRef" .path) (eq .scheme "az") -}}
generic --from-literal=AZURE_STORAGE_ACCOUNT_NAME=NAME --from-literal=AZURE_STORAGE_ACCOUNT_KEY=KEY
{{- else if hasSuffix ".store.secretRef" .path -}}
generic --from-literal=HF_TOKEN=TOKEN
{{- else -}}
generic --from-literal=KEY=VALUE
{{- end -}}
{{- end }}

{{/* A paragraph for NOTES: for each Secret of `.lines` where it is named and a command; nothing without any. */}}
{{- define "bettertherapy.secretNotes" -}}
{{- range compact (splitList "\n" .lines) }}
{{- $line := splitList " " . }}
{{- $named := dict "path" (index $line 0) "name" (index $line 1) "scheme" (index $line 2) }}
{{- $options := splitList " --" (include "bettertherapy.secretOptions" $named) }}
     # {{ $named.path }}
     kubectl -n {{ $.namespace }} create secret {{ first $options }} {{ $named.name }}
{{- range rest $options }} \
       --{{ . }}
{{- end }}
{{- end }}
{{- end }}
