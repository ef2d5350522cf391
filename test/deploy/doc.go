// Package deploy holds tests of what is installed into a cluster: the Helm
// chart and the manifests rendered from it, against a real API server and with
// the real helm and kubectl.
package deploy
