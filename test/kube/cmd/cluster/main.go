// Command cluster runs clusters of real nodes on this machine (package
// test/kube/cluster):
//
//	cluster up N              start a cluster of N nodes
//	cluster status            what runs, and how much memory it takes
//	cluster kubectl ARG...    kubectl as its administrator
//	cluster exec COMMAND...   run a command in the control plane's network
//	cluster node N COMMAND... run a command on a node
//	cluster import FILE...    add images, as OCI archives, to all nodes
//	cluster node-kill N       power cut; the disk stays
//	cluster node-boot N       power on
//	cluster apiserver-restart
//	cluster down              end and remove it
//
// -name tells several clusters apart.
package main

import (
	"fmt"
	"os"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "cluster:", err)
		os.Exit(1)
	}
}
