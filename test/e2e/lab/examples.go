package lab

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/confine-dev/confine/test/kube/image"
)

const (
	examplesFolder = "examples/cluster"
	exampleProfile = "examples/profiles/worker.json"
	exampleName    = "worker:1.0.0"
)

// What the examples say to replace.
var (
	exampleKey   = regexp.MustCompile(`(?s)-----BEGIN PUBLIC KEY-----.*?-----END PUBLIC KEY-----`)
	exampleImage = regexp.MustCompile(`registry\.example\.com/busybox:[0-9]+`)
	examplePin   = regexp.MustCompile(`registry\.example\.com/profiles/worker:[^@\s]+@sha256:0{64}`)
)

const exampleRepository = "registry.example.com/profiles/"

// ApplyExamples pushes and signs the example's profile, and applies the folder
// examples/cluster with this lab's registry, digest, key and image in it. More
// replacements are pairs of old and new.
func (l *Lab) ApplyExamples(ctx context.Context, more ...string) error {
	reference, err := l.PushFiles(ctx, l.Repository(exampleName), Team, l.root(exampleProfile))
	if err != nil {
		return err
	}
	key, err := l.PublicKey(Team)
	if err != nil {
		return err
	}
	files, err := filepath.Glob(l.root(examplesFolder + "/*.yaml"))
	if err != nil {
		return err
	}
	if len(files) == 0 {
		return fmt.Errorf("%s holds no manifest", examplesFolder)
	}
	slices.Sort(files)
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		text := examplePin.ReplaceAllLiteralString(string(data), reference)
		text = exampleImage.ReplaceAllLiteralString(text, image.BusyboxName)
		text = exampleKey.ReplaceAllStringFunc(text, func(string) string { return indented(key) })
		text = strings.ReplaceAll(text, exampleRepository, l.Repository(""))
		text = strings.NewReplacer(more...).Replace(text)
		cmd := l.Cluster.Kubectl(ctx, "apply", "--filename=-")
		cmd.Stdin = bytes.NewBufferString(text)
		if _, err := output(cmd); err != nil {
			return fmt.Errorf("%s: %w", file, err)
		}
	}
	return nil
}

// indented is a key as it stands in the example, below "pem: |".
func indented(pem string) string {
	return strings.Join(strings.Split(strings.TrimSpace(pem), "\n"), "\n        ")
}

// Wrappers writes programs that work on the cluster from outside, kubectl and
// confine among them, and returns their folder. They go with the lab.
func (l *Lab) Wrappers(ctx context.Context) (string, error) {
	dir := l.file("bin")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	environment := []string{
		"KUBECONFIG=" + l.Cluster.Kubeconfig(), "KUBECACHEDIR=" + l.file("kubectl"), "COSIGN_PASSWORD=" + password, "SSL_CERT_FILE=" + l.Registry.CAFile,
		"DOCKER_CONFIG=" + filepath.Dir(l.Registry.DockerConfig),
		"HELM_CACHE_HOME=" + l.file("helm", "cache"), "HELM_CONFIG_HOME=" + l.file("helm", "config"), "HELM_DATA_HOME=" + l.file("helm", "data"),
	}
	for name, args := range map[string][]string{
		// Without flags: before the name of a plugin none may stand.
		"kubectl":         l.Cluster.Command(ctx, filepath.Join(l.Cluster.Dir(), "bin", "kubectl")).Args,
		"confine":         l.Cluster.Command(ctx, l.program()).Args,
		"kubectl-confine": l.Cluster.Command(ctx, l.program()).Args,
		"helm":            l.Cluster.Command(ctx, l.helm).Args,
	} {
		text := "#!/bin/sh\nexec env " + quoted(environment) + " " + quoted(args) + " \"$@\"\n"
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o755); err != nil {
			return "", err
		}
	}
	return dir, nil
}

// quoted joins words for a shell.
func quoted(words []string) string {
	all := make([]string, len(words))
	for i, word := range words {
		all[i] = "'" + strings.ReplaceAll(word, "'", `'\''`) + "'"
	}
	return strings.Join(all, " ")
}

// KeyFile is the private key of a signer; the wrappers know its password.
func (l *Lab) KeyFile(signer string) string { return l.file(signer + ".key") }
