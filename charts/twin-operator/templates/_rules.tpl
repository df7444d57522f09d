{{/*
What the operator may do where it watches. It creates Roles for agents, miners, trainers and rounds, so it must itself hold what those
grant (routing slices, pod reports, ConfigMaps, rounds): the API server refuses to hand out more than one has. It can't read
Secrets: the kubelet mounts them into the pods that need them. It creates the Secret with a new pool's token, those with a new
validator's keys, and the claim of its ledger, which it never changes or deletes; that one exists it learns from the answer to
such a request, also as a dry run.
*/}}
{{- define "twin-operator.rules" -}}
- apiGroups: [bettertherapy.io]
  resources: [doctortwins, minerpools, validators]
  verbs: [get, list, watch]
# Scheduled runs are its own; those whose time is over it deletes.
- apiGroups: [bettertherapy.io]
  resources: [finetuneruns]
  verbs: [get, list, watch, create, delete]
# Validators' CronJobs make rounds, by a right that the operator hands on; those whose time is over it deletes.
- apiGroups: [bettertherapy.io]
  resources: [validatorrounds]
  verbs: [get, list, watch, create, delete]
- apiGroups: [bettertherapy.io]
  resources: [doctortwins/status, finetuneruns/status, minerpools/status, validatorrounds/status, validators/status]
  verbs: [patch]
# Owner references that block the owner's deletion need this where OwnerReferencesPermissionEnforcement is on.
- apiGroups: [bettertherapy.io]
  resources:
    - doctortwins/finalizers
    - finetuneruns/finalizers
    - minerpools/finalizers
    - validatorrounds/finalizers
    - validators/finalizers
  verbs: [update]
# What data planes follow, and what their agents say; the latter it only reads, but it grants agents the right to write.
- apiGroups: [bettertherapy.io]
  resources: [podreports, routingslices]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [""]
  resources: [persistentvolumeclaims, secrets]
  verbs: [create]
- apiGroups: [""]
  resources: [configmaps, serviceaccounts, services]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [""]
  resources: [pods]
  verbs: [get, list, watch]
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create]
- apiGroups: [apps]
  resources: [deployments]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [leaderworkerset.x-k8s.io]
  resources: [leaderworkersets]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [batch]
  resources: [cronjobs, jobs]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [policy]
  resources: [poddisruptionbudgets]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [networking.k8s.io]
  resources: [networkpolicies]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [rbac.authorization.k8s.io]
  resources: [roles, rolebindings]
  verbs: [get, list, watch, create, patch, delete]
{{- end }}

{{/* What people may do: see, change, and decide on versions, which takes a verb of its own (twin-decisions). */}}
{{- define "twin-operator.viewRules" -}}
- apiGroups: [bettertherapy.io]
  resources:
    - doctortwins
    - doctortwins/status
    - finetuneruns
    - finetuneruns/status
    - minerpools
    - minerpools/status
    - minerpools/scale
    - podreports
    - routingslices
    - validatorrounds
    - validatorrounds/status
    - validators
    - validators/status
    - validators/scale
  verbs: [get, list, watch]
{{- end }}

{{- define "twin-operator.editRules" -}}
- apiGroups: [bettertherapy.io]
  resources: [doctortwins, finetuneruns, minerpools, validatorrounds, validators]
  verbs: [create, update, patch, delete, deletecollection]
- apiGroups: [bettertherapy.io]
  resources: [minerpools/scale, validators/scale]
  verbs: [update, patch]
{{- end }}

{{- define "twin-operator.approveRules" -}}
- apiGroups: [bettertherapy.io]
  resources: [doctortwins]
  verbs: [approve, patch]
{{- end }}
