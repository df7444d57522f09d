// The process that holds a pod's namespaces.
module bettertherapy/local/pause

go 1.26.0
