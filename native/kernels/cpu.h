// What this CPU, and the operating system for it, have of what the instruction sets need.
#pragma once

#include <string>

// Each says what is missing, in the words that end the sentence "This machine has no ...", or "".
namespace openwork::cpu {

#ifdef __x86_64__
std::string lacks_avx2();
std::string lacks_avxvnni();
std::string lacks_avx512vnni();
std::string lacks_vbmi();
std::string lacks_vbmi2();
// Asks the operating system for the tiles too, once: they are this process's then.
std::string lacks_amx();
bool has_avx512bf16();
#endif
#ifdef __aarch64__
std::string lacks_dot_product();
#endif

}  // namespace openwork::cpu
