// Output rows of an image at its upper and lower border, some of whose rows of taps lie in the padding altogether. A kernel that
// leaves those out multiplies a tenth less where the image has seven rows, a twentieth less where it has fourteen.
#pragma once

#include <vector>

#include "kernels/gemm.h"
#include "runtime/convolution/indirection.h"
#include "runtime/linear/partition.h"

namespace openwork {

using Bands = std::vector<RowBand>;

// Fewer rows than this cost more as tiles of their own than they save.
inline constexpr int64_t kLeastBandRows = 6;

// Of each of the partition's row blocks; none where all rows need all runs.
std::vector<Bands> find_bands(const Indirection& indirection, const LinearPartition& partition);

}  // namespace openwork
