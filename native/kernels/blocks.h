// What the forms with rows in the lanes need beyond other products (blocks_body.h).
#pragma once

#include <cstdint>

namespace openwork {

// Memory of the calling thread for the activations of a block of rows, aligned to a cache line. It grows to what was asked
// for and stays until the thread ends; each call makes what an earlier one returned invalid. Throws std::bad_alloc.
uint8_t* block_scratch(int64_t bytes);

}  // namespace openwork
