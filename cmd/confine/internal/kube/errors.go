package kube

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/clientcmd"
)

const tryAgain = "try again"

// Error says what the API server, or the way to it, refused, and what to do.
// It is no reason of the closed set: those are about profiles and nodes.
type Error struct {
	// What happened, to what, without a full stop.
	What string
	// Advice says what to do.
	Advice string
	// Again is set where the same command may work later.
	Again bool
	// Err is the cause; it may be nil.
	Err error
}

// Error renders what happened.
func (e *Error) Error() string { return e.What }

// WhatToDo says what to do.
func (e *Error) WhatToDo() string { return e.Advice }

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// IsNotFound reports whether the object is not there, while its kind is.
func IsNotFound(err error) bool { return apierrors.IsNotFound(err) && !notServed(err) }

// IsForbidden reports whether the user may not do that.
func IsForbidden(err error) bool { return apierrors.IsForbidden(err) }

// IsConflict reports whether the object changed meanwhile.
func IsConflict(err error) bool { return apierrors.IsConflict(err) }

// IsAgain reports whether the same may work later.
func IsAgain(err error) bool {
	e, ok := errors.AsType[*Error](err)
	return ok && e.Again
}

// notServed reports whether the server does not know the kind at all.
func notServed(err error) bool {
	status, ok := errors.AsType[*apierrors.StatusError](err)
	if !ok || !apierrors.IsNotFound(err) {
		return false
	}
	details := status.ErrStatus.Details
	return details == nil || details.Name == "" || apierrors.HasStatusCause(err, metav1.CauseTypeUnexpectedServerResponse)
}

// explainConfig makes errors of finding the cluster say what to do.
func explainConfig(o Options, err error) error {
	where := "the kubeconfig"
	if o.Kubeconfig != "" {
		where = o.Kubeconfig
	}
	switch {
	case clientcmd.IsEmptyConfig(err):
		return &Error{What: ErrNoCluster.Error(), Err: ErrNoCluster,
			Advice: "set KUBECONFIG or give --kubeconfig FILE"}
	case clientcmd.IsContextNotFound(err), o.Context != "" && strings.Contains(err.Error(), "context"):
		return &Error{What: fmt.Sprintf("%s: %v", where, err), Err: err,
			Advice: "choose a context that the kubeconfig has: kubectl config get-contexts lists them"}
	case strings.Contains(err.Error(), "no Auth Provider found"):
		return &Error{What: fmt.Sprintf("%s: %v", where, err), Err: err,
			Advice: "use an exec credential plugin (users[].user.exec): auth-provider plugins are not built in"}
	default:
		return &Error{What: fmt.Sprintf("%s: %v", where, err), Err: err, Advice: "mend the kubeconfig; kubectl config view reads it too"}
	}
}

// explain makes an error of one request say what to do.
func (c *Client) explain(err error, verb, resource string, key types.NamespacedName) error {
	object := resource
	if key.Name != "" {
		object = strings.TrimPrefix(key.String(), "/")
	}
	told := func(again bool, advice, format string, args ...any) error {
		return &Error{What: fmt.Sprintf(format, args...), Advice: advice, Again: again, Err: err}
	}
	switch {
	case notServed(err):
		return told(false, "install Confine with its CRDs (docs/operations.md), or choose another cluster with --context",
			"%s: this API server does not know %s", c.host, served(resource))
	case apierrors.IsNotFound(err):
		return told(false, "check name and namespace: confine status -A lists all", "%s %q does not exist", singular(resource), object)
	case apierrors.IsForbidden(err):
		return told(false, fmt.Sprintf("ask an administrator for a role with %q on %q; kubectl auth can-i %s %s tells whether you have it",
			verb, served(resource), verb, served(resource)), "you may not %s %s%s", verb, served(resource), scope(key))
	case apierrors.IsUnauthorized(err):
		return told(false, "log in again, or choose another user with --context", "%s does not know who you are: the credentials of the kubeconfig are wrong or expired", c.host)
	case apierrors.IsConflict(err):
		return told(true, tryAgain, "%s was changed by somebody else at the same moment", object)
	case apierrors.IsInvalid(err), apierrors.IsBadRequest(err):
		return told(false, "see the message of the API server", "%s: %v", object, err)
	case apierrors.IsResourceExpired(err), apierrors.IsTooManyRequests(err), apierrors.IsServerTimeout(err),
		apierrors.IsTimeout(err), apierrors.IsInternalError(err), apierrors.IsServiceUnavailable(err):
		return told(true, tryAgain, "%s %s: %v", verb, object, err)
	default:
		return c.explainTransport(err, verb, object)
	}
}

// explainTransport is about what never reached an API server.
func (c *Client) explainTransport(err error, verb, object string) error {
	var network net.Error
	var authority x509.UnknownAuthorityError
	switch {
	case errors.Is(err, context.Canceled):
		return err
	case errors.As(err, &authority):
		return &Error{What: fmt.Sprintf("%s: its certificate is signed by nobody the kubeconfig trusts", c.host), Err: err,
			Advice: "give certificate-authority in the kubeconfig"}
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &network) && network.Timeout():
		return &Error{What: fmt.Sprintf("%s did not answer in time (%s %s)", c.host, verb, object), Err: err, Again: true,
			Advice: "check that the API server can be reached, or give a longer --timeout"}
	case errors.As(err, &network):
		return &Error{What: fmt.Sprintf("%s cannot be reached: %v", c.host, errors.Unwrap(err)), Err: err, Again: true,
			Advice: "check that the cluster runs, and that --kubeconfig and --context name the right one"}
	default:
		return &Error{What: fmt.Sprintf("%s %s: %v", verb, object, err), Err: err, Again: true, Advice: "check the kubeconfig and the cluster"}
	}
}

// served is a resource as RBAC and kubectl name it.
func served(resource string) string {
	switch resource {
	case Profiles, Nodes, Policies:
		return resource + ".confine.dev"
	default:
		return resource
	}
}

func singular(resource string) string {
	switch resource {
	case Profiles:
		return "SecurityProfile"
	case Nodes:
		return "ProfileNode"
	case "nodes":
		return "node"
	default:
		return resource
	}
}

func scope(key types.NamespacedName) string {
	if key.Namespace == "" {
		return ""
	}
	return " in namespace " + key.Namespace
}
