// Package api_test asks a real API server what it makes of the API: that every
// bound and rule of the CRDs refuses what it is there for with a helpful
// message, and that what documents and examples show is accepted.
package api_test

import (
	"context"
	"fmt"
	"os"
	"testing"

	"k8s.io/client-go/dynamic"

	"github.com/confine-dev/confine/test/kube/apitest"
)

// server is started once for all tests here, which only read it or write
// objects of names of their own.
var server *apitest.Env

func TestMain(m *testing.M) {
	code, err := run(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

func run(m *testing.M) (int, error) {
	env, err := apitest.Start(context.Background(), apitest.Options{})
	if err != nil {
		return 1, err
	}
	server = env
	code := m.Run()
	return code, env.Stop()
}

func client(t *testing.T) dynamic.Interface {
	t.Helper()
	c, err := dynamic.NewForConfig(server.Config())
	if err != nil {
		t.Fatal(err)
	}
	return c
}
