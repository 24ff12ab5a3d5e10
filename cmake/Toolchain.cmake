# Language, warnings, sanitizers, linker: the same for every target of the project.
set(CMAKE_CXX_STANDARD 23)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)
set(CMAKE_RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/bin)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)

find_program(DAVIT_CCACHE ccache)
if(DAVIT_CCACHE)
  set(CMAKE_CXX_COMPILER_LAUNCHER ${DAVIT_CCACHE})
endif()

find_program(DAVIT_MOLD mold)
if(DAVIT_MOLD)
  add_link_options(-fuse-ld=mold)
endif()

add_library(davit_warnings INTERFACE)
target_compile_options(davit_warnings INTERFACE
  -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wold-style-cast -Wnon-virtual-dtor
  -Wsuggest-override -Wformat=2 -Wno-missing-field-initializers
  # With optimisation g++ 12 sees overlapping copies and uninitialised reads in std::string and
  # std::expected where there are none (GCC bugs 105329, 105562); clang and the sanitizers look too.
  $<$<CXX_COMPILER_ID:GNU>:-Wno-restrict -Wno-maybe-uninitialized>
  $<$<BOOL:${DAVIT_WERROR}>:-Werror>
  # libstdc++ 12 uses its own deprecated get_temporary_buffer in std::stable_sort; g++ does not say
  # so and still reports every other use of deprecated names.
  $<$<CXX_COMPILER_ID:Clang>:-Wno-deprecated-declarations>
  $<$<CXX_COMPILER_ID:Clang>:-Wthread-safety>)

add_compile_options(-fno-omit-frame-pointer -fstack-protector-strong)
add_compile_definitions(_FILE_OFFSET_BITS=64 DAVIT_VERSION="${PROJECT_VERSION}")
if(DAVIT_SANITIZE)
  add_compile_options(-fsanitize=${DAVIT_SANITIZE} -fno-sanitize-recover=all)
  add_link_options(-fsanitize=${DAVIT_SANITIZE})
endif()
