// Package apitest gives tests a real Kubernetes API server: kube-apiserver and
// etcd of the pinned versions (test/tools), on loopback, with this project's
// CRDs installed and established, and RBAC in force.
//
// One server for all tests of a package, which start it in TestMain, is the
// usual way, since a start takes a few seconds:
//
//	env, err := apitest.Start(ctx, apitest.Options{})
//	...
//	defer env.Stop()
//	c, err := client.New(env.Config(), client.Options{Scheme: scheme})
//
// New does the same for a single test. Tests that share a server keep apart by
// namespaces of their own.
//
// There are no controllers: nobody makes the default ServiceAccount, deletes
// the content of a namespace, or collects garbage, and no Pod ever runs.
//
// Who a client is decides what it may do. Config is an administrator; ConfigFor
// is anyone, by client certificate; AgentToken with ConfigForToken is a
// ServiceAccount in a Pod on a node, with the claims that the agent's token has.
//
// Servers of several processes run side by side. A server dies with the process
// that started it, however that ends, and what a killed process leaves on the
// disk is removed by the next Start.
package apitest
