/** What engines say of a pod in a bundle's annotations. */

/** Where an engine says that a bundle is a pod's pause container, and how. */
const pauseMarks: Readonly<Record<string, string>> = {
  "io.kubernetes.cri.container-type": "sandbox", // containerd
  "io.kubernetes.cri-o.ContainerType": "sandbox", // CRI-O
  "io.kubernetes.docker.type": "podsandbox", // dockershim
};

/** Whether it is the container that stands for the pod itself. */
export function isPause(annotations: Readonly<Record<string, string>> | undefined): boolean {
  return Object.entries(pauseMarks).some(([name, value]) => annotations?.[name] === value);
}
