// The two kinds of forms over windows: `dense`, which holds every weight, and the shuffled ones, which leave zeros out.
#pragma once

#include "kernels/packer.h"

namespace openwork::windows {

// Elements of a run that the dense form reads for one group of a convolution.
inline int64_t dense_elements(const WeightShape& s) { return s.run_taps() > 1 ? s.run_elements() : s.channels; }

void pack_dense(Packer& to);
void pack_shuffled(Packer& to);

}  // namespace openwork::windows
