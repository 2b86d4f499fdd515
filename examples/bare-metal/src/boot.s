# From the loader to Rust.
#
# QEMU's `-kernel` looks for the note below (the PVH boot protocol of Xen), and jumps to the address in
# it: 32-bit protected mode, no paging, no stack, no interrupts, %ebx = address of the start info.
# What has to be done from there: clear memory that must be zero, enable paging and 64-bit mode, allow
# SSE instructions (which the compiler uses as it likes), set up a stack.
#
# There is no interrupt table: nobody enables interrupts, and an exception of the processor (a page
# fault, say) finds no handler, so the machine resets. QEMU's `-no-reboot` makes that an end.

    .section .note.Xen, "a", @note
    .align 4
    .long 4                         # bytes of the name
    .long 8                         # bytes of the value
    .long 18                        # XEN_ELFNOTE_PHYS32_ENTRY
    .asciz "Xen"
    .quad pvh_entry

    .section .text.boot, "ax", @progbits
    .code32
    .global pvh_entry
pvh_entry:
    cld
    movl %ebx, %esi                 # out of the way

    xorl %eax, %eax
    movl $bss_start, %edi
    movl $bss_end, %ecx
    subl %edi, %ecx
    rep stosb

    # The two levels above the pages of the first GiB: present, writable.
    movl $({directories} + 3), {root}
    movl $({low_pages} + 3), {directories}

    movl %cr4, %eax
    orl $0x620, %eax                # PAE, OSFXSR, OSXMMEXCPT
    movl %eax, %cr4
    movl ${root}, %eax
    movl %eax, %cr3
    movl $0xc0000080, %ecx          # EFER
    rdmsr
    orl $0x100, %eax                # LME
    wrmsr
    movl $0x80010013, %eax          # PG, WP, ET, MP, PE; caches on, no emulation of the FPU
    movl %eax, %cr0
    lgdt descriptors_pointer
    ljmp $8, $long_mode

    .code64
long_mode:
    xorl %eax, %eax
    movw %ax, %ds
    movw %ax, %es
    movw %ax, %ss
    movl $stack_top, %esp
    movl %esi, %edi                 # first argument
    call {main}
    ud2

    .section .rodata.boot, "a", @progbits
    .align 8
descriptors:
    .quad 0
    .quad 0x00af9a000000ffff        # 64-bit code
descriptors_pointer:
    .word . - descriptors - 1
    .long descriptors
