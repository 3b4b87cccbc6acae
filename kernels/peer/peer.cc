// The kernels are in cuda/; a build without CUDA has none of them.
#include "kernels/peer/peer.h"
