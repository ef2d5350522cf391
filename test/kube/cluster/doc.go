// Package cluster runs a whole Kubernetes cluster on one machine: etcd,
// kube-apiserver, controller manager and scheduler in one network namespace,
// and nodes of kubelet, containerd, runc and the CNI bridge plugin, each in
// namespaces of its own (network, mount, UTS, IPC, PID), all of the versions
// pinned in test/tools. It needs root and the cgroup v1 controllers.
//
// Nothing listens in the machine's own network namespace, and nothing in the
// cluster reaches out of it. So addresses are the same in every cluster, and
// several can be up at once: the names of what they share, network namespaces
// and cgroups, come from the folder that a cluster keeps its state in.
//
//	10.99.0.1        the control plane's bridge; serve a registry here (Command)
//	10.99.0.10+N     node N, called nodeN; pods with hostNetwork have it too
//	10.88.N.0/24     the other pods of node N
//	10.96.0.1:443    the API server as pods know it (KUBERNETES_SERVICE_HOST)
//
// There is no kube-proxy and no DNS: the API server's is the only service
// address that works. Pods reach each other, the nodes and the control plane.
//
// A node's disk is a folder (Cluster.NodeDisk) that outlives KillNode, which is
// a power cut. Everything ends and goes by Down, also after a crash, and also
// when another process brought the cluster up.
package cluster
