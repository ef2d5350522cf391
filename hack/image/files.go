package main

import (
	"bytes"
	"encoding/pem"
	"fmt"
	"io/fs"
	"path"

	"golang.org/x/crypto/x509roots/fallback/bundle"
)

// uid is the user that everything in the image runs as, unless a pod says
// otherwise. It owns the profiles on hosts, so it is not 65532, which many
// images use, but one that distributions leave alone
// (https://systemd.io/UIDS-GIDS: 65520 to 65533 are unused).
const uid = 65527

// file is one file of the image; folders come by themselves. All belong to root.
type file struct {
	path   string
	source string // the file with its content; empty: data is
	data   []byte
	link   string // what a symbolic link leads to
	mode   fs.FileMode
}

// hostRoot is where pods mount parts of the host, for agents that run programs
// of the host with it as their root.
const hostRoot = "host/root"

func binaries() []string { return []string{"confine", "confine-agent", "confine-controller"} }

// baseFiles are all there is besides the binaries: no shell, no libc, no
// package manager.
func baseFiles() []file {
	files := []file{
		{path: "etc/passwd", mode: 0o644, data: fmt.Appendf(nil,
			"root:x:0:0:root:/:/sbin/nologin\nconfine:x:%d:%d:Confine:/:/sbin/nologin\n", uid, uid)},
		{path: "etc/group", mode: 0o644, data: fmt.Appendf(nil, "root:x:0:\nconfine:x:%d:\n", uid)},
		{path: "etc/ssl/certs/ca-certificates.crt", mode: 0o644, data: roots()},
	}
	// Of the host's own folders only /usr can be mounted everywhere. The rest is
	// as in file-hierarchy(7), which all distributions with AppArmor or SELinux
	// have come to.
	for _, name := range []string{"bin", "lib", "lib64", "sbin"} {
		files = append(files, file{path: path.Join(hostRoot, name), link: "usr/" + name, mode: 0o777})
	}
	return files
}

// roots are the certificate authorities of Mozilla as the Go project keeps
// them. go.sum pins them, so that they do not depend on the machine that builds.
// Those that Mozilla trusts only for certificates of before some day are left
// out: a file of certificates cannot say that.
func roots() []byte {
	var all bytes.Buffer
	for root := range bundle.Roots() {
		if root.Constraint == nil {
			// Writing to a buffer does not fail.
			_ = pem.Encode(&all, &pem.Block{Type: "CERTIFICATE", Bytes: root.Certificate})
		}
	}
	return all.Bytes()
}
