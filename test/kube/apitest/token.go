package apitest

import (
	"context"
	"fmt"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
)

// AgentToken returns a token as the kubelet on the node requests it for a Pod
// that runs there under the ServiceAccount: bound to the Pod, so that the API
// server learns Pod and node from it (user.extra
// "authentication.kubernetes.io/node-name"). The Pod is named after both. It
// makes what is missing of namespace, ServiceAccount, Node and Pod.
func (e *Env) AgentToken(ctx context.Context, namespace, serviceAccount, node string) (string, error) {
	c, err := kubernetes.NewForConfig(e.Config())
	if err != nil {
		return "", err
	}
	pod, err := ensurePod(ctx, c, namespace, serviceAccount, node)
	if err != nil {
		return "", fmt.Errorf("token of %s/%s on %s: %w", namespace, serviceAccount, node, err)
	}
	request := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{
		BoundObjectRef: &authenticationv1.BoundObjectReference{APIVersion: "v1", Kind: "Pod", Name: pod.Name, UID: pod.UID},
	}}
	token, err := c.CoreV1().ServiceAccounts(namespace).CreateToken(ctx, serviceAccount, request, metav1.CreateOptions{})
	if err != nil {
		return "", fmt.Errorf("token of %s/%s on %s: %w", namespace, serviceAccount, node, err)
	}
	return token.Status.Token, nil
}

func ensurePod(ctx context.Context, c kubernetes.Interface, namespace, serviceAccount, node string) (*corev1.Pod, error) {
	_, err := c.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}}, metav1.CreateOptions{})
	if err != nil && !apierrors.IsAlreadyExists(err) {
		return nil, err
	}
	_, err = c.CoreV1().ServiceAccounts(namespace).Create(ctx, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: serviceAccount}}, metav1.CreateOptions{})
	if err != nil && !apierrors.IsAlreadyExists(err) {
		return nil, err
	}
	_, err = c.CoreV1().Nodes().Create(ctx, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: node}}, metav1.CreateOptions{})
	if err != nil && !apierrors.IsAlreadyExists(err) {
		return nil, err
	}
	pods := c.CoreV1().Pods(namespace)
	name := serviceAccount + "-" + node
	_, err = pods.Create(ctx, &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: corev1.PodSpec{
			ServiceAccountName: serviceAccount,
			NodeName:           node,
			Containers:         []corev1.Container{{Name: "main", Image: "localhost/none"}},
		},
	}, metav1.CreateOptions{})
	if err != nil && !apierrors.IsAlreadyExists(err) {
		return nil, err
	}
	return pods.Get(ctx, name, metav1.GetOptions{})
}
