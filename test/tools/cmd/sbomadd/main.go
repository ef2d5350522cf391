// Command sbomadd adds C libraries that are linked into a binary to the
// CycloneDX SBOM on standard input, which lists only Go modules, and writes it
// to standard output:
//
//	sbomadd libseccomp=2.5.4-1+deb12u1 <in.json >out.json
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
)

func main() {
	if err := run(os.Stdin, os.Stdout, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "sbomadd:", err)
		os.Exit(1)
	}
}

// run copies the SBOM and appends one component for each NAME=VERSION. Members
// come out sorted by name, so that the same input gives the same bytes.
func run(in io.Reader, out io.Writer, libraries []string) error {
	var sbom map[string]any
	if err := json.NewDecoder(in).Decode(&sbom); err != nil {
		return fmt.Errorf("reading the SBOM: %w", err)
	}
	components, ok := sbom["components"].([]any)
	if !ok {
		return errors.New("the SBOM lists no components")
	}
	for _, library := range libraries {
		name, version, ok := strings.Cut(library, "=")
		if !ok || name == "" || version == "" {
			return fmt.Errorf("library %q is not NAME=VERSION", library)
		}
		components = append(components, debianLibrary(name, version))
	}
	sbom["components"] = components
	enc := json.NewEncoder(out)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	return enc.Encode(sbom)
}

// debianLibrary describes a library built from a Debian source package
// (https://github.com/package-url/purl-spec, type deb).
func debianLibrary(name, version string) map[string]any {
	purl := "pkg:deb/debian/" + name + "@" + strings.ReplaceAll(version, "+", "%2B")
	return map[string]any{
		"bom-ref": purl,
		"type":    "library",
		"name":    name,
		"version": version,
		"purl":    purl,
	}
}
