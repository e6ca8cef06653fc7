/* The emulated machine's whole firmware: a ROM of 64 KiB whose only act is to enter a Linux kernel that the emulator has put into
 * memory (run.sh says where), by the kernel's 32-bit boot protocol (Linux: Documentation/arch/x86/boot.rst). No BIOS is needed
 * because the kernel initialises what devices there are. */
        .set    rom, 0xF0000            /* the ROM's second address, below 1 MiB */
        .set    kernel, 0x100000
        .set    boot_params, 0x90000

        .set    flag_segment, 0x9FC0    /* memory that the kernel is told not to use; zeros at first */

        .code16
start:  cli
        movw    $flag_segment, %ax
        movw    %ax, %ds
        cmpb    $0, 0
        jne     off                     /* a second start: the kernel has panicked */
        movb    $1, 0
        movb    $2, %al                 /* address line 20 works */
        outb    %al, $0x92
        lgdtl   %cs:gdt_register
        movl    %cr0, %eax
        orb     $1, %al
        movl    %eax, %cr0
        ljmpl   $0x10, $(rom + protected)

off:    movw    $0x8900, %dx            /* the emulator's own switch, which wants to read a word */
        xorw    %si, %si
1:      movb    %cs:word(%si), %al
        outb    %al, %dx
        incw    %si
        cmpw    $8, %si
        jne     1b
2:      hlt
        jmp     2b
word:   .ascii  "Shutdown"

        .code32
protected:
        movw    $0x18, %ax
        movw    %ax, %ds
        movw    %ax, %es
        movw    %ax, %ss
        xorl    %ebp, %ebp
        xorl    %edi, %edi
        xorl    %ebx, %ebx
        movl    $boot_params, %esi
        movl    $kernel, %eax
        jmp     *%eax

        .balign 8
        /* 0x10: code, 0x18: data; all 4 GiB, and marked as accessed already, because nobody can mark them in a ROM */
gdt:    .quad   0, 0, 0x00CF9B000000FFFF, 0x00CF93000000FFFF
gdt_register:
        .word   gdt_register - gdt - 1
        .long   rom + gdt

        .org    0xFFF0                  /* where a CPU starts */
        .code16
        jmp     start
        .org    0x10000
