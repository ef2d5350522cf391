// Command image makes the container image of a release from static binaries,
// without a container engine:
//
//	go run ./hack/image -version v1.2.3 -epoch SECONDS -out FILE amd64=DIR arm64=DIR
//
// Each folder holds confine, confine-agent and confine-controller for Linux on
// that architecture. The file is an OCI archive: an image layout
// (https://github.com/opencontainers/image-spec/blob/main/image-layout.md) in a
// tar file, as `ctr images import`, `skopeo copy oci-archive:` and `oras cp
// --from-oci-layout` read it. The same input gives the same bytes.
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "image:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	fs := flag.NewFlagSet("image", flag.ContinueOnError)
	name := fs.String("name", "ghcr.io/confine-dev/confine", "repository that the image is called by")
	version := fs.String("version", "", "version of the release, which is also the tag (required)")
	epoch := fs.Int64("epoch", 0, "time of all there is in it, in seconds since 1970 (SOURCE_DATE_EPOCH)")
	out := fs.String("out", "", "file to write (required)")
	if err := fs.Parse(args); err != nil {
		return err
	}
	if *version == "" || *out == "" || fs.NArg() == 0 {
		return errors.New("give -version, -out and at least one ARCHITECTURE=FOLDER")
	}
	spec := image{
		name: *name, tag: tagOf(*version), version: *version, created: time.Unix(*epoch, 0).UTC(),
	}
	for _, arg := range fs.Args() {
		arch, folder, ok := strings.Cut(arg, "=")
		if !ok || arch == "" || folder == "" {
			return fmt.Errorf("%q is not ARCHITECTURE=FOLDER", arg)
		}
		files := baseFiles()
		for _, binary := range binaries() {
			files = append(files, file{path: "usr/local/bin/" + binary, source: filepath.Join(folder, binary), mode: 0o755})
		}
		spec.platforms = append(spec.platforms, platform{architecture: arch, files: files})
	}
	digest, err := spec.writeFile(*out)
	if err != nil {
		return err
	}
	fmt.Printf("%s:%s@%s\n", spec.name, spec.tag, digest)
	return nil
}

// tagOf makes a tag of a version: semantic versions may hold a plus.
func tagOf(version string) string {
	return strings.ReplaceAll(strings.TrimPrefix(version, "v"), "+", "-")
}
