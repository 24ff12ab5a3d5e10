davit_library(cli_davit
  SRCS davit_app.cc davit_build.cc davit_check.cc davit_convert.cc davit_copy.cc davit_demo.cc davit_extract.cc
    davit_inspect.cc image_access.cc progress.cc
  HDRS build_flags.h davit_app.h image_access.h progress.h
  DEPS cli_common rafs_convert common_config common_json common_http daemon_core storage_registry
  PRIVATE fmt::fmt)
if(TARGET cli_davit_node)
  target_link_libraries(cli_davit PUBLIC cli_davit_node)
endif()
davit_binary(davit SRCS davit_main.cc DEPS cli_davit)
install(PROGRAMS ${CMAKE_SOURCE_DIR}/scripts/demo ${CMAKE_SOURCE_DIR}/scripts/make_image.py DESTINATION share/davit)
install(FILES ${CMAKE_SOURCE_DIR}/LICENSE ${CMAKE_SOURCE_DIR}/README.md ${CMAKE_SOURCE_DIR}/CHANGES.md
  ${CMAKE_SOURCE_DIR}/CONTRIBUTING.md ${CMAKE_SOURCE_DIR}/SECURITY.md DESTINATION share/doc/davit)
install(DIRECTORY ${CMAKE_SOURCE_DIR}/docs DESTINATION share/doc/davit)
