// Package cluster is the node's source of intent and trust in a cluster, and
// where its report goes.
//
// It watches two things: the one ProfileNode of its own node, and all
// TrustPolicies. It writes one: the status of that ProfileNode. An API server
// that is away holds up nobody: the agent goes on with what is known, and after
// a start with what this package kept on the disk, which is good enough to judge
// and repair what is installed, and for nothing else.
package cluster
