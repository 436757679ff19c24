import sys,re,subprocess
pid=int(sys.argv[1])
out=sys.argv[2]
maps=[l.split() for l in open(f"/proc/{pid}/maps")]
mem=open(f"/proc/{pid}/mem","rb")
for m in maps:
    a,b=[int(x,16) for x in m[0].split("-")]
    if "x" in m[1] and len(m)==5:
        print(m[0],m[1],b-a)
        mem.seek(a)
        try: data=mem.read(b-a)
        except Exception as e: print(e); continue
        open(f"{out}.{a:x}","wb").write(data)
